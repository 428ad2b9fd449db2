"""D tensors of molecules during a run on the GPU: cut out, made whole and evaluated there.

The pairs of an isolated molecule are all pairs of its atoms, whatever their distance: such a list never has to be built
again, so an evaluation waits for nothing, is one CUDA graph, and does not depend on earlier ones. What comes back to
the host, while the next block of steps runs, are positions of the molecules, outputs of the network, the moments where
the head needs them, and the features where extrapolation grades are known; the small sums over atoms are made there.

Not supported: cells that change, and draws of a single model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gmcore.device.cuda import Array
from gmcore.dynamics.state import DynamicsError
from gmcore.dynamics.tensor_observer import TensorObserver
from gmcore.engine.evaluator_cuda import DeviceEvaluator
from gmcore.engine.neighbors import Pairs
from gmcore.kernels import molecules_cuda


class CardTensorObserver:
    """The twin of a `TensorObserver` for replicas on the GPU.

    Parameters
    ----------
    observer : with a model loaded with device="cuda".
    positions : (n_replicas, n_atoms, 3) A, on the host: any frame of the run.
    cells : (n_replicas, 3, 3) A, those of the whole run.

    Raises
    ------
    DynamicsError : the model is on the CPU.
    """

    def __init__(self, observer: TensorObserver, positions: np.ndarray, cells: np.ndarray):
        evaluator, molecules = observer.model.evaluator, observer.molecules
        if not isinstance(evaluator, DeviceEvaluator):
            raise DynamicsError("D on the GPU needs a model loaded with device='cuda', got a model on the CPU")
        self._observer, self._evaluator, self._device = observer, evaluator, evaluator.device
        whole = molecules.extract(positions, cells)
        self._shape, batch = whole.shape, observer.batch(whole)
        n_own, self._n_molecules = whole.shape[2], batch.n_structures
        found = evaluator.upload_pairs(batch, all_pairs(self._n_molecules, n_own, evaluator.cutoff))
        self._pairs = found._replace(token=self)  # its arrays never change
        upload = self._device.upload
        lattice, inverse = np.zeros((len(cells), 3, 3)), np.zeros((len(cells), 3, 3))
        reduced = molecules.reduced_lattice(cells)
        n_periodic = reduced.shape[1]
        lattice[:, :n_periodic] = reduced
        inverse[:, :, :n_periodic] = np.linalg.pinv(reduced)
        largest = np.linalg.norm(inverse, axis=1).max(axis=1)
        with np.errstate(divide="ignore"):
            safe = 0.5 / largest  # infinite without a periodic direction
        self._arrays = tuple(map(upload, (molecules.indices, molecules.walk, lattice, inverse, safe)))
        self._shifts = self._device.empty((batch.n_atoms, 3), np.float64)
        self._species = batch.species(evaluator.species)

    def __call__(self, positions: Array) -> Callable[[], dict[str, np.ndarray]]:
        """Queue an evaluation at positions (n_replicas, n_atoms, 3) A on the device.

        Returns
        -------
        function that waits and returns what a `TensorObserver` does, but for the draws of a single model.
        """
        batch, device, environments = self._pairs.batch, self._device, self._observer.model.uncertainty.environments
        device.launch(molecules_cuda.unwrap, self._n_molecules, positions, *self._arrays, self._shifts, batch.positions)
        members = self._evaluator.evaluate_later(self._pairs, self._observer.head)
        features = None
        if environments is not None:
            features = self._evaluator.features_later(self._evaluator.step(self._pairs, forces=False))
        copied = device.download_later(batch.positions)

        def samples() -> dict[str, np.ndarray]:
            whole = copied()
            grades = None
            if environments is not None and features is not None:
                grades = environments.grades(features(), self._species)
            return self._observer.samples(whole.reshape(self._shape), members(whole), None, grades)

        return samples


def all_pairs(n_molecules: int, n_atoms: int, cutoff: float) -> Pairs:
    """Return every ordered pair of atoms of each of `n_molecules` molecules of `n_atoms` atoms."""
    neighbor = np.tile(np.arange(n_atoms), (n_atoms, 1))[~np.eye(n_atoms, dtype=bool)].reshape(n_atoms, n_atoms - 1)
    whole = n_atoms * np.arange(n_molecules)[:, None, None] + neighbor
    row_start = (n_atoms - 1) * np.arange(n_molecules * n_atoms + 1, dtype=np.int64)
    return Pairs(
        row_start,
        whole.reshape(-1).astype(np.int32),
        np.repeat(np.arange(n_molecules, dtype=np.int32), n_atoms * (n_atoms - 1)),
        np.zeros((n_molecules, 3), np.int32),
        np.arange(n_molecules, dtype=np.int32),
        cutoff,
    )
