"""The parts of an analysis that belong to one temperature: distributions, structure, correlation functions, deviations.

Each function takes the samples of a state and returns self-describing numbers (`gmcore.analysis.records`). Curves have
only as many points as a figure shows; numbers come from all samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.analysis.correlation import tensor_autocorrelation, velocity_autocorrelation
from gmcore.analysis.model_errors import ModelErrors, are_draws, deviation
from gmcore.analysis.records import axis, curve, quantity, thinned
from gmcore.analysis.samples import Samples
from gmcore.analysis.statistics import (
    StatisticsError,
    block_average,
    correlation_coefficient,
    distribution,
    statistical_inefficiency,
)
from gmcore.analysis.structure import Coordination
from gmcore.anisotropy import zfs_parameters
from gmcore.evaluation.metrics import unique_components
from gmcore.quantities import ELEMENTS

CURVE_POINTS = 400
"""Maximum number of points of a plotted curve."""

SCATTER_POINTS = 600
"""Maximum number of samples of a temperature in a scatter plot."""

KERNELS = 5000
"""Maximum number of samples for a distribution; neighbors in time are nearly equal."""


def thermodynamics(samples: Samples) -> dict[str, Any]:
    """Return the measured temperature and the drift of the conserved quantity, if they were recorded."""
    result: dict[str, Any] = {}
    if "temperature" in samples:
        values = samples.series("temperature")
        mean = block_average(samples.pooled(values), samples.n_blocks)
        result["temperature"] = quantity(
            mean.mean, "K", "mean kinetic temperature", error=mean.error, replicas=values.mean(axis=1)
        )
    if "conserved" in samples:
        values, times = samples.series("conserved"), samples.times("conserved") / 1000.0
        slopes = [np.polyfit(times - times.mean(), replica, 1)[0] for replica in values]
        per_atom = 1e6 * np.array(slopes) / samples.trajectory.n_atoms
        result["drift"] = quantity(per_atom, "ueV/(atom ps)", "slope of the conserved quantity, one value per replica")
    return result


def distributions(series: dict[str, np.ndarray], unit: str, about: dict[str, str]) -> dict[str, Any]:
    """Return the probability density of each pooled series (n,) in `unit`; constant series have none."""
    result: dict[str, Any] = {}
    for name, values in series.items():
        values = values[thinned(len(values), KERNELS)]
        try:
            found = distribution(values, lower=0.0 if name == "E" else None)
        except StatisticsError:  # constant
            continue
        result[name] = curve(
            axis(name, unit, found.grid), axis("density", f"1/({unit})", found.density, 4), about[name]
        )
    return result


def structure(
    samples: Samples,
    shell: Coordination,
    positions: np.ndarray,
    anisotropy: dict[str, np.ndarray],
    seed: int,
    members: np.ndarray | None = None,
    errors: ModelErrors | None = None,
) -> dict[str, Any]:
    """Return means and widths of the measures, their correlation with D and E, and points for a scatter plot.

    Parameters
    ----------
    samples : the samples of a state.
    shell : what is measured.
    positions : (n_series, n, n_atoms, 3) A.
    anisotropy : "D" and "E" -> (n_series * n,) of the same frames; empty in a run without D.
    seed : seed of the bootstrap.
    members, errors : members (n_series, n, n_members, 3, 3) and errors of the model of D, where it is calibrated.
    """
    through = None if errors is None or members is None else zfs_parameters(samples.pooled(members))
    n_blocks, frames = samples.n_blocks, samples.pooled(positions)
    rows = thinned(len(frames), SCATTER_POINTS)
    result: dict[str, Any] = {"measures": [], "correlations": [], "scatter": {}}
    for measure in shell.measures:
        values = shell.values(measure, frames)
        mean = block_average(values, n_blocks)
        entry: dict[str, Any] = {"name": measure.name, "words": measure.words}
        entry["mean"] = quantity(mean.mean, measure.unit, f"mean of the {measure.words}", error=mean.error)
        entry["width"] = quantity(values.std(), measure.unit, f"standard deviation of the {measure.words}")
        result["measures"].append(entry)
        result["scatter"][measure.name] = axis(measure.words, measure.unit, values[rows], 5)
        for name, other in anisotropy.items():
            if np.ptp(values) > 0.0 and np.ptp(other) > 0.0:
                found = correlation_coefficient(values, other, seed=seed)
                about, model = f"correlation coefficient of {name} with the {measure.words}", None
                if through is not None and errors is not None:
                    of_members = _coefficients(values, through.d if name == "D" else through.e)
                    model = errors.scaled(name, deviation(of_members, np.asarray(found.value), errors.draws))
                result["correlations"].append(
                    {"of": name, "with": measure.name}
                    | quantity(found.value, "", about, interval=[found.low, found.high], model=model)
                )
    return result


def _coefficients(values: np.ndarray, of_members: np.ndarray) -> np.ndarray:
    """Pearson's coefficients (n_members,) of values (n,) with those of each member (n, n_members)."""
    first, second = values - values.mean(), of_members - of_members.mean(axis=0)
    scale = np.sqrt((first @ first) * np.sum(second**2, axis=0))
    return (first @ second) / np.where(scale > 0.0, scale, 1.0)


def anisotropy_points(anisotropy: dict[str, np.ndarray], unit: str) -> dict[str, Any]:
    """Return D and E of the frames in the scatter plot of `structure`."""
    return {
        name: axis(name, unit, values[thinned(len(values), SCATTER_POINTS)], 5) for name, values in anisotropy.items()
    }


def velocity_correlation(samples: Samples, max_lag: float) -> dict[str, Any]:
    """Return C_vv(t) up to max_lag (ps), P eq. 15."""
    interval = samples.interval("velocity")
    velocities = samples.series("velocity")
    values = velocity_autocorrelation(velocities, _n_lags(max_lag, interval, velocities.shape[1]))
    return {
        "velocity": _correlation_curve(
            values, interval, "C_vv", "velocity autocorrelation, eq. 15 of Zaverkin et al. 2022"
        )
    }


def tensor_correlations(samples: Samples, tensors: np.ndarray, max_lag: float) -> dict[str, Any]:
    """Return C_DD(t) up to max_lag (ps), as in P eq. 15 and for fluctuations.

    Parameters
    ----------
    samples : the samples of a state.
    tensors : (n_series, n, 3, 3) in one frame, any unit.
    max_lag : ps.
    """
    interval = samples.interval("d_tensor")
    n_lags = _n_lags(max_lag, interval, tensors.shape[1])
    result = {}
    for name, fluctuation, about in (
        ("d_tensor", False, "autocorrelation of the elements of D, eq. 15 of Zaverkin et al. 2022"),
        ("d_tensor_fluctuation", True, "autocorrelation of the elements of D - <D>"),
    ):
        values = tensor_autocorrelation(tensors, n_lags, fluctuation)
        result[name] = _correlation_curve(values, interval, "C_DD", about)
    return result


def correlation_time(values: np.ndarray, interval: float) -> dict[str, Any]:
    """Return the integrated correlation time, ps, of series (n_series, n) sampled every `interval` fs."""
    times = [(statistical_inefficiency(series) - 1.0) / 2.0 * interval / 1000.0 for series in values]
    return quantity(float(np.mean(times)), "ps", "integrated correlation time, mean over replicas", replicas=times)


def halves(values: np.ndarray, unit: str, about: str) -> dict[str, Any]:
    """Return how much the mean changes between the halves of each series (n_replicas, n), with standard errors.

    In equilibrium the mean changes by one or two standard errors. They come from the spread and the statistical
    inefficiency of each half.
    """
    middle = values.shape[1] // 2
    parts = values[:, :middle], values[:, middle:]
    variances = [[series.var() * statistical_inefficiency(series) / len(series) for series in part] for part in parts]
    change = parts[1].mean(axis=1) - parts[0].mean(axis=1)
    return quantity(change, unit, about, error=np.sqrt(np.sum(variances, axis=0)))


def course(values: np.ndarray, times: np.ndarray, name: str, unit: str, about: str) -> list[dict[str, Any]]:
    """Return each of the series (n_replicas, n) at times (n,), fs, as a curve over short stretches of time.

    The curve is the mean of a stretch, its band the lowest and the highest value: vibrations that are faster than a
    stretch are seen as the band.
    """
    starts = np.unique(thinned(values.shape[1], CURVE_POINTS + 1)[:-1])
    counts = np.diff(np.append(starts, values.shape[1]))
    middle = np.add.reduceat(times, starts) / counts / 1000.0
    return [
        curve(
            axis("time", "ps", middle, 6),
            axis(name, unit, np.add.reduceat(series, starts) / counts, 5),
            about,
            low=np.minimum.reduceat(series, starts),
            high=np.maximum.reduceat(series, starts),
        )
        for series in values
    ]


def committee(samples: Samples, tensors: np.ndarray | None, members: np.ndarray | None, unit: str) -> dict[str, Any]:
    """Return the deviation between the members of the committees, or of draws, as means and along the run.

    Parameters
    ----------
    samples : the samples of a state.
    tensors : (n_series, n, 3, 3) in `unit`; None without D.
    members : (n_series, n, n_members, 3, 3) in `unit`, members or draws; None without.
    unit : unit of D.
    """
    result: dict[str, Any] = {}
    if "forces_deviation" in samples:
        values = samples.series("forces_deviation")
        if np.isfinite(values).all():
            about = "deviation of forces between members: root mean square over atoms of that of the force vector"
            times = samples.times("forces_deviation")
            result["forces"] = _deviation(samples, values, times, "eV/A", about)
    if tensors is not None and members is not None and members.shape[2] > 1:
        draws = are_draws(samples.pooled(tensors), samples.pooled(members))
        elements = deviation(np.moveaxis(members, 2, 0), tensors, draws)
        about = "deviation of D between members: root mean square over its nine elements"
        along = np.sqrt(np.mean(elements**2, axis=(-1, -2)))
        result["d_tensor"] = _deviation(samples, along, samples.times("d_tensor"), unit, about)
    return result


def _deviation(samples: Samples, values: np.ndarray, times: np.ndarray, unit: str, about: str) -> dict[str, Any]:
    """Return mean, 5 to 95 % range, and the curve of each replica, averaged over short stretches of time."""
    mean = block_average(samples.pooled(values), samples.n_blocks)
    length = -(-values.shape[1] // CURVE_POINTS)
    n = values.shape[1] // length
    stretches = values[:, : n * length].reshape(len(values), n, length)
    middle = times[: n * length].reshape(n, length).mean(axis=1)
    return {
        "mean": quantity(mean.mean, unit, about, error=mean.error, interval=np.quantile(values, [0.05, 0.95])),
        "along": [
            curve(axis("time", "ps", middle / 1000.0, 6), axis("deviation", unit, replica.mean(axis=1), 4), about)
            for replica in stretches
        ],
    }


def tensor_elements(tensors: np.ndarray) -> dict[str, np.ndarray]:
    """Return the six elements (n,) of pooled tensors (n, 3, 3), by name."""
    return dict(zip(ELEMENTS, unique_components(tensors).T))


def _n_lags(max_lag: float, interval: float, n: int) -> int:
    """Return the number of lags up to max_lag ps, at most half the series: later lags have too few samples."""
    return max(2, min(n // 2, int(1000.0 * max_lag / interval) + 1))


def _correlation_curve(values: np.ndarray, interval: float, name: str, about: str) -> dict[str, Any]:
    rows = thinned(len(values), 2 * CURVE_POINTS)
    return curve(axis("time", "ps", rows * interval / 1000.0), axis(name, "", values[rows], 5), about)
