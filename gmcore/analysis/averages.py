"""Thermal averages of a D tensor along a trajectory: means, widths, and the errors of both.

D, E and the axis are not linear functions of the tensor. Two averages therefore differ, and both are given:

    <D of the tensor>   D, E, axis of each frame, then averaged: what a fast observer would see on average
    D of <the tensor>   the tensor averaged first, in a frame fixed to the molecule: what a slow observer sees

The tumbling of the molecule must be removed before the second (`align` and `rotate_tensors` of
`gmcore.molecules.superposition`); D, E, eigenvalues and J2 of the frames do not depend on it. The axis is a director:
its mean is the eigenvector of the largest eigenvalue S of <n n^T>. S is 1 if all axes are parallel and 1/3 if they have
no order.

Near the rhombic limit E/|D| = 1/3 the sign of D and the axis jump from frame to frame. There <D> mixes both signs
(see `negative_fraction`) and S falls. The ascending eigenvalues, J2 = tr(D^2)/2 and the elements never jump.

Three numbers are given with each mean. They mean different things:

    width       standard deviation over frames: thermal motion, not an error
    error       standard error from blocks of frames: finite sampling. For D of <the tensor> it comes from leaving out
                one block at a time (jackknife), variance (b - 1)/b sum_k (x_k - xbar)^2
    committee   deviation between members, each averaged separately: the part of the error of the model that they show.
                `gmcore.analysis.model_errors` makes an error of it. Members of a committee deviate from their mean, the
                draws of a single model from the model itself
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmcore.analysis.model_errors import are_draws, deviation
from gmcore.analysis.statistics import block_average
from gmcore.anisotropy import Anisotropy, axis_angle, detrace, mean_axis, zfs_parameters
from gmcore.errors import GMError


class AveragesError(GMError):
    """Tensors that cannot be averaged."""


class Average(NamedTuple):
    """Mean, width, standard error and committee deviation of one quantity, all with the same unit and shape.

    The committee deviation is NaN without members.
    """

    mean: np.ndarray
    width: np.ndarray
    error: np.ndarray
    committee: np.ndarray


class AxisAverage(NamedTuple):
    """Mean director (3,), its order S from 1/3 to 1, and angles in degrees.

    Attributes
    ----------
    director : (3,) unit vector.
    order : S, no unit.
    width : degrees, root mean square angle between the axes of the frames and the mean director.
    error : degrees, standard error of the mean director, from the directors of blocks.
    committee : degrees, root mean square angle between the directors of the members and their mean (for draws: that of
        the model).

    All are NaN if no frame has an axis; committee is NaN without members.
    """

    director: np.ndarray
    order: float
    width: float
    error: float
    committee: float


class OfMean(NamedTuple):
    """One quantity of the averaged tensor, its standard error (jackknife) and committee deviation; no width.

    For the axis `value` is a director (3,), and the deviations are angles in degrees.
    """

    value: np.ndarray
    error: float
    committee: float


@dataclass(frozen=True, eq=False)
class ThermalAverages:
    """Averages over n_frames tensors with errors from n_blocks blocks, in the unit u of the tensor if not stated.

    Attributes
    ----------
    d, e, e_over_d : <D>, <E> and <E/|D|> (no unit) of the frames.
    eigenvalues : (3,), of the frames, ascending.
    j2 : u^2, of the frames.
    elements : (3, 3), of the traceless tensor; its mean is the averaged tensor.
    axis : director average of the easy or hard axis of the frames.
    negative_fraction : fraction of the frames with D < 0; between 0 and 1 it means that <D> mixes two signs.
    d_of_mean, e_of_mean, axis_of_mean : of the averaged tensor.
    """

    n_frames: int
    n_blocks: int
    d: Average
    e: Average
    e_over_d: Average
    eigenvalues: Average
    j2: Average
    elements: Average
    axis: AxisAverage
    negative_fraction: float
    d_of_mean: OfMean
    e_of_mean: OfMean
    axis_of_mean: OfMean


def thermal_averages(tensors: ArrayLike, members: ArrayLike | None = None, n_blocks: int = 10) -> ThermalAverages:
    """Return the averages of a trajectory of D tensors.

    Parameters
    ----------
    tensors : (n, 3, 3) in a frame fixed to the molecule, any unit; traces are ignored. Replicas of one temperature are
        concatenated; if n_blocks is a multiple of their number, no block mixes two replicas.
    members : (n, n_members, 3, 3), the predictions of a committee whose mean is `tensors`, or draws of a single model.
    n_blocks : number of equal blocks for the errors; each should be several correlation times long.

    Raises
    ------
    TensorError : if tensors are not symmetric or not finite.
    AveragesError : if shapes or numbers of frames do not fit, or n_blocks is below 2 or above n.
    """
    traceless = _traceless(tensors, 3, "tensors (n, 3, 3)")
    if not 2 <= n_blocks <= len(traceless):
        raise AveragesError(f"the number of blocks must lie between 2 and the {len(traceless)} frames, got {n_blocks}")
    frames = zfs_parameters(traceless)
    of_members, through, draws = None, None, False
    if members is not None:
        of_members = _traceless(members, 4, "members (n, n_members, 3, 3)")
        if len(of_members) != len(traceless):
            raise AveragesError(f"members must belong to the {len(traceless)} frames, got {len(of_members)}")
        through, draws = zfs_parameters(of_members), are_draws(traceless, of_members)

    def average(name: str) -> Average:
        return _average(getattr(frames, name), None if through is None else getattr(through, name), n_blocks, draws)

    d_of_mean, e_of_mean, axis_of_mean = _of_mean(traceless, of_members, n_blocks, draws)
    return ThermalAverages(
        n_frames=len(traceless),
        n_blocks=n_blocks,
        d=average("d"),
        e=average("e"),
        e_over_d=average("e_over_d"),
        eigenvalues=average("eigenvalues"),
        j2=average("j2"),
        elements=_average(traceless, of_members, n_blocks, draws),
        axis=_axis_average(frames, through, n_blocks, draws),
        negative_fraction=float(np.mean(frames.d < 0.0)),
        d_of_mean=d_of_mean,
        e_of_mean=e_of_mean,
        axis_of_mean=axis_of_mean,
    )


def _average(values: np.ndarray, members: np.ndarray | None, n_blocks: int, draws: bool) -> Average:
    """Average values (n, ...) and members (n, n_members, ...), leaving out frames without a value (E/|D| of zero)."""
    if values.ndim == 1:
        has_value = np.isfinite(values)
        values = values[has_value]
        members = None if members is None else members[has_value]
    if len(values) < n_blocks:
        nan = np.full(values.shape[1:], np.nan)
        return Average(nan, nan, nan, nan)
    mean, error = block_average(values, n_blocks)
    committee = np.full_like(mean, np.nan)
    if members is not None:
        committee = deviation(np.nanmean(members, axis=0), mean, draws)
    return Average(mean, values.std(axis=0), error, committee)


def _axis_average(frames: Anisotropy, through: Anisotropy | None, n_blocks: int, draws: bool) -> AxisAverage:
    axes = frames.axis[np.isfinite(frames.axis).all(axis=1)]
    if len(axes) < n_blocks:
        return AxisAverage(np.full(3, np.nan), np.nan, np.nan, np.nan, np.nan)
    director, order = mean_axis(axes)
    length = len(axes) // n_blocks
    blocks = axes[len(axes) - n_blocks * length :].reshape(n_blocks, length, 3)
    error = _spread([mean_axis(block)[0] for block in blocks], director) / math.sqrt(n_blocks - 1)
    committee = np.nan
    if through is not None:
        own = [mean_axis(axis)[0] for axis in np.swapaxes(through.axis, 0, 1) if np.isfinite(axis).all(axis=1).any()]
        committee = _spread(own, director if draws else mean_axis(own)[0])
    return AxisAverage(director, order, _spread(axes, director), error, committee)


def _of_mean(
    tensors: np.ndarray, members: np.ndarray | None, n_blocks: int, draws: bool
) -> tuple[OfMean, OfMean, OfMean]:
    """Return D, E and axis of the mean of tensors (n, 3, 3)."""
    whole = zfs_parameters(tensors.mean(axis=0))
    length = len(tensors) // n_blocks
    blocks = tensors[len(tensors) - n_blocks * length :].reshape(n_blocks, length, 3, 3).mean(axis=1)
    left_out = zfs_parameters((blocks.sum(axis=0) - blocks) / (n_blocks - 1))
    inflation = math.sqrt(n_blocks - 1.0)  # of the population deviation of jackknife values
    through = None if members is None else zfs_parameters(members.mean(axis=0))

    def of_mean(name: str) -> OfMean:
        own = getattr(whole, name)
        committee = np.nan if through is None else float(deviation(getattr(through, name), own, draws))
        return OfMean(getattr(whole, name), inflation * float(getattr(left_out, name).std()), committee)

    axis_committee = np.nan
    if through is not None and np.isfinite(through.axis).all():
        axis_committee = _spread(through.axis, whole.axis if draws else mean_axis(through.axis)[0])
    return (
        of_mean("d"),
        of_mean("e"),
        OfMean(whole.axis, inflation * _spread(left_out.axis, whole.axis), axis_committee),
    )


def _spread(axes: ArrayLike, director: np.ndarray) -> float:
    """Return the root of the mean square angle, degrees, between axes (n, 3) and a director; NaN if one is NaN."""
    return float(np.sqrt(np.mean(axis_angle(axes, director) ** 2)))


def _traceless(tensors: ArrayLike, n_dimensions: int, name: str) -> np.ndarray:
    traceless, _ = detrace(tensors)
    if traceless.ndim != n_dimensions or 0 in traceless.shape:
        raise AveragesError(f"averages need {name}, got shape {traceless.shape}")
    return traceless
