"""Averages of D at one temperature: zero-field-splitting parameters, elements and distributions.

Errors are those of `gmcore.analysis.averages`, from blocks of all replicas. A width is the standard deviation over
frames; it also has an error, from leaving out one block at a time (jackknife). Errors of the model are those of
`gmcore.analysis.model_errors`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.analysis.averages import Average, OfMean, thermal_averages
from gmcore.analysis.model_errors import AXIS, KEY, UNKNOWN, ModelErrors, deviation
from gmcore.analysis.records import quantity
from gmcore.analysis.samples import Samples
from gmcore.analysis.sections.states import correlation_time, course, distributions, halves, tensor_elements
from gmcore.anisotropy import zfs_parameters
from gmcore.quantities import ELEMENTS, UNIQUE


def anisotropy_section(
    samples: Samples, tensors: np.ndarray, members: np.ndarray | None, unit: str, errors: ModelErrors | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the sections "anisotropy", "elements", "distributions", "along", and D and E (n,) of the pooled frames.

    Parameters
    ----------
    samples : the samples of a state.
    tensors : (n_series, n, 3, 3) in `unit`, in the frame of the molecule.
    members : (n_series, n, n_members, 3, 3) of a committee, or draws of a single model; None without.
    unit : unit of D.
    errors : errors of the model, where it is calibrated.
    """
    n_blocks, frames = samples.n_blocks, samples.pooled(tensors)
    pooled = None if members is None else samples.pooled(members)
    averages = thermal_averages(frames, pooled, n_blocks)
    errors = errors or UNKNOWN
    widths = dict.fromkeys(("D", "E", *ELEMENTS), np.nan)
    if pooled is not None and errors.kappa:
        widths = _width_deviations(frames, pooled, errors.draws)
    found = zfs_parameters(tensors)
    scalars = {"D": samples.pooled(found.d), "E": samples.pooled(found.e)}
    section: dict[str, Any] = {}
    for name, average, of_mean in (
        ("D", averages.d, averages.d_of_mean),
        ("E", averages.e, averages.e_of_mean),
    ):
        section[name] = _mean(average, unit, f"<{name}>: mean over frames of {name}", model=errors.of_average(name))
        section[name]["replicas"] = scalars[name].reshape(len(samples.state.replicas), -1).mean(axis=1).tolist()
        words = f"standard deviation of {name} over frames"
        section[f"{name}_width"] = width_of(scalars[name], n_blocks, unit, words, errors.scaled(name, widths[name]))
        section[f"{name}_of_mean"] = _of_mean(of_mean, unit, f"{name} of the averaged tensor", errors.of_average(name))
    section["E_over_D"] = _mean(
        averages.e_over_d, "", "mean over frames of E/|D|", model=errors.scaled("E", averages.e_over_d.committee)
    )
    section["eigenvalues"] = _mean(
        averages.eigenvalues, unit, "mean eigenvalues of the frames, ascending", model=errors.of_average(KEY)
    )
    section["J2"] = _mean(
        averages.j2, f"({unit})^2", "mean over frames of tr(D^2)/2", model=errors.scaled(KEY, averages.j2.committee)
    )
    section["negative_fraction"] = quantity(averages.negative_fraction, "", "fraction of the frames with D < 0")
    axis = averages.axis
    section["axis"] = quantity(axis.director, "", "mean director of the axis of D; its sign is arbitrary")
    section["axis_order"] = quantity(
        axis.order, "", "largest eigenvalue of <n n^T>: 1 for parallel axes, 1/3 for random axes"
    )
    section["axis_spread"] = quantity(
        axis.width, "deg", "root mean square angle between the axis of each frame and the mean director"
    )
    section["axis_error"] = quantity(
        axis.error,
        "deg",
        "standard error of the mean director",
        error=axis.error,
        committee=_known(axis.committee),
        model=errors.of_average(AXIS),
    )
    section["axis_of_mean"] = quantity(averages.axis_of_mean.value, "", "axis of the averaged tensor")
    section["correlation_time"] = correlation_time(found.d, samples.interval("d_tensor"))
    n_replicas = len(samples.state.replicas)
    by_replica = found.d.reshape(n_replicas, -1, found.d.shape[1])
    section["D_drift"] = halves(
        by_replica.mean(axis=1), unit, "mean of D in the second half minus that in the first, one value per replica"
    )
    about_course = "D along the run: mean, lowest and highest value of short stretches; of the first molecule"
    along = course(by_replica[:, 0], samples.times("d_tensor"), "D", unit, about_course)
    elements = {
        name: {
            "mean": _mean(averages.elements, unit, f"mean of D_{name}", (i, j), errors.of_average(KEY)),
            "width": width_of(
                frames[:, i, j],
                n_blocks,
                unit,
                f"standard deviation of D_{name} over frames",
                errors.scaled(KEY, widths[name]),
            ),
        }
        for name, (i, j) in zip(ELEMENTS, UNIQUE)
    }
    about = {name: f"distribution of {name} over frames" for name in ("D", "E")}
    about |= {name: f"distribution of D_{name} over frames" for name in ELEMENTS}
    drawn = distributions(scalars | tensor_elements(frames), unit, about)
    sections = {"anisotropy": section, "elements": elements, "distributions": drawn, "along": {"D": along}}
    return sections, scalars


def _width_deviations(frames: np.ndarray, members: np.ndarray, draws: bool) -> dict[str, float]:
    """Return the deviations of the widths of D, E and the elements between members (n, n_members, 3, 3) or draws."""
    own, through = zfs_parameters(frames), zfs_parameters(members)
    series = {"D": (own.d, through.d), "E": (own.e, through.e)}
    series |= {name: (frames[:, i, j], members[:, :, i, j]) for name, (i, j) in zip(ELEMENTS, UNIQUE)}
    return {name: float(deviation(of.std(axis=0), values.std(), draws)) for name, (values, of) in series.items()}


def width_of(values: np.ndarray, n_blocks: int, unit: str, about: str, model: float | None = None) -> dict[str, Any]:
    """Return the width (standard deviation) of values (n,) with its jackknife error; n is a multiple of n_blocks."""
    blocks = (values - values.mean()).reshape(n_blocks, -1)
    first = (blocks.mean() * n_blocks - blocks.mean(axis=1)) / (n_blocks - 1)
    second = ((blocks**2).mean() * n_blocks - (blocks**2).mean(axis=1)) / (n_blocks - 1)
    left_out = np.sqrt(np.maximum(second - first**2, 0.0))
    return quantity(values.std(), unit, about, error=np.sqrt(n_blocks - 1.0) * left_out.std(), model=model)


def _mean(average: Average, unit: str, about: str, at: tuple[int, ...] = (), model: Any = None) -> dict[str, Any]:
    mean, error, committee = (entry[at] for entry in (average.mean, average.error, average.committee))
    return quantity(mean, unit, about, error=error, committee=_known(committee), model=model)


def _of_mean(average: OfMean, unit: str, about: str, model: float | None) -> dict[str, Any]:
    return quantity(average.value, unit, about, error=average.error, committee=_known(average.committee), model=model)


def _known(committee: Any) -> Any:
    """Return the committee deviation, None without a committee."""
    return committee if np.isfinite(committee).all() else None
