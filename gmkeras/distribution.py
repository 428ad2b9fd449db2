"""Data-parallel training: each batch is split between the replicas of a `tf.distribute` strategy.

Batches are structures laid end to end, so TensorFlow must not cut them by rows itself: the pipeline hands every replica
whole structures, the k-th part of the global batch. `GMModel` divides its loss by the structures of all replicas
(`global_share`) and the optimizer adds the gradients up, so a step is that of one worker to rounding.

Not supported: batches with fewer structures than replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gmcore.errors import GMError
from gmkeras.data import PreparedData


def global_share(n_structures: tf.Tensor) -> tf.Tensor:
    """Structures of this replica over those of all replicas, float64; 1 without a strategy."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(1.0, tf.float64)
    own = tf.cast(n_structures, tf.float64)
    return own / context.all_reduce(tf.distribute.ReduceOp.SUM, own)


def reducible(results: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Results of a step as Keras can average them over processes: along an axis, which scalars do not have.

    Only `MultiWorkerMirroredStrategy` is treated so; Keras averages within a process without that axis.
    """
    multi_worker = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return {key: value[tf.newaxis] for key, value in results.items()} if multi_worker else results


def check_split(strategy: tf.distribute.Strategy, method: str, *data: Any) -> None:
    """Refuse data of which TensorFlow would cut every array by rows, whatever its rows stand for.

    Raises
    ------
    ValueError : there are several replicas, and something else than `distributed_batches`.
    """
    if strategy.num_replicas_in_sync > 1:
        for part in data:
            if part is not None and not isinstance(part, tf.distribute.DistributedDataset):
                raise ValueError(
                    f"{method} with several workers needs batches that are split by structures: make them with "
                    "gmkeras.distribution.distributed_batches"
                )


def split_batch(chosen: Sequence[int] | np.ndarray, n_replicas: int) -> list[np.ndarray]:
    """The structures of a batch, dealt out in order and as evenly as possible.

    >>> [part.tolist() for part in split_batch([4, 1, 3, 0, 2], 2)]
    [[4, 1, 3], [0, 2]]
    """
    return np.array_split(np.asarray(chosen), n_replicas)


def distributed_batches(
    strategy: tf.distribute.Strategy,
    data: PreparedData,
    batch_size: int,
    *,
    seed: int | Sequence[int] | None = None,
    first_epoch: int = 0,
) -> tf.distribute.DistributedDataset:
    """What `data.dataset(batch_size, ...)` gives, for `fit` with a model made in the scope of `strategy`.

    Parameters
    ----------
    batch_size : structures of all replicas together.
    seed, first_epoch : as in `PreparedData.dataset`: the order of the structures is the same, whatever the replicas.

    Raises
    ------
    GMError : a batch has fewer structures than there are replicas.
    """
    n_replicas = strategy.num_replicas_in_sync
    smallest = min(batch_size, data.n_structures % batch_size or batch_size, data.n_structures)
    if smallest < n_replicas:
        raise GMError(
            f"every batch must have a structure for each of the {n_replicas} workers, got {smallest} in the last one: "
            "choose another batch_size"
        )

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        per_worker = n_replicas // context.num_input_pipelines
        mine = range(context.input_pipeline_id * per_worker, (context.input_pipeline_id + 1) * per_worker)

        def parts() -> Iterator[tuple]:
            for chosen in data.order(batch_size, seed, first_epoch):
                shares = split_batch(chosen, n_replicas)
                for replica in mine:  # a pipeline serves its replicas in turn
                    yield data.batch(shares[replica])

        return tf.data.Dataset.from_generator(parts, output_signature=data.signature()).prefetch(2 * per_worker)

    return strategy.distribute_datasets_from_function(of_worker)
