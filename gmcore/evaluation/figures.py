"""Figures of a training: parity plots, loss curves, learning curves.

Figures are `matplotlib.figure.Figure` objects drawn by the Agg canvas. They do not use pyplot, so they need no display,
have no global state, and are safe in threads. matplotlib is imported inside the functions, so that prediction and
training start without it. Colors are those of Okabe and Ito, which can be distinguished with every kind of color
vision; components also have different markers, and two curves different lightness and dashes. The suffix of the path
chooses the format: png, pdf, svg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError
from gmcore.evaluation.metrics import compared, error_measures
from gmcore.evaluation.power_law import PowerLaw, fit_power_law
from gmcore.files import atomic_path
from gmcore.quantities import BY_NAME, ELEMENTS, Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
DARK, LIGHT = "#08306b", "#e07b00"
"""Two colors that differ in lightness, so that two series can be told apart in grey too."""
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DPI = 160
FEW_POINTS = 2000
"""Above this number of points markers are small and transparent."""

UNIT_LABELS = {"eV/A": "eV/Å", "eV/A^3": "eV/Å$^3$", "e*A": "e Å", "cm^-1": "cm$^{-1}$", "A^3": "Å$^3$"}


class FigureError(GMError):
    """A figure without data, or a missing plotting package."""


def parity(
    path: str | PathLike, key: str, reference: Any, predicted: Any, unit: str | None = None, title: str | None = None
) -> Path:
    """Draw prediction against reference for one quantity and return the path.

    Parameters
    ----------
    path : file of the figure.
    key, reference, predicted : as in `metrics.evaluate_arrays`; energies are shown relative to the mean reference.
    unit : unit of the values; the internal unit if not given.
    title : title of the figure.

    Raises
    ------
    FigureError : if the key is unknown or no value is labeled.
    """
    if key not in BY_NAME:
        raise FigureError(f"no parity plot for {key!r}; known: {', '.join(BY_NAME)}")
    expected, value, _ = compared(key, reference, predicted)
    if not expected.size:
        raise FigureError(f"a parity plot of {key} needs labeled values, but the data have none")
    unit = BY_NAME[key].unit if unit is None else unit
    figure = new_figure(5.0, 4.8)
    axes = figure.add_subplot()
    draw_parity(axes, key, expected, value, unit)
    axes.set_title(title or BY_NAME[key].title)
    return _save(figure, path)


def draw_parity(axes: Axes, key: str, expected: np.ndarray, value: np.ndarray, unit: str) -> None:
    """Draw predicted against reference values (n_rows, n_components), as of `metrics.compared`, with MAE and RMSE."""
    from matplotlib.ticker import MaxNLocator

    measures = error_measures(value - expected, unit)
    if key == "energy":
        expected, value = expected - expected.mean(), value - expected.mean()
    low, high = float(min(expected.min(), value.min())), float(max(expected.max(), value.max()))
    margin = 0.05 * (high - low) or 1.0
    axes.plot([low - margin, high + margin], [low - margin, high + margin], color="0.4", linewidth=1.0, zorder=1)
    crowded = expected.size > FEW_POINTS
    names = _series(BY_NAME[key])
    if len(names) == 1:
        expected, value = expected.reshape(-1, 1), value.reshape(-1, 1)
    for column, name in enumerate(names):
        axes.scatter(
            expected[:, column],
            value[:, column],
            s=5 if crowded else 20,
            alpha=0.4 if crowded else 0.7,
            color=COLORS[column],
            marker=MARKERS[column],
            linewidths=0,
            label=name,
            rasterized=True,
            zorder=2,
        )
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.ticklabel_format(scilimits=(-2, 4))
    axes.set_xlabel(labeled("reference", unit))
    axes.set_ylabel(labeled("prediction", unit))
    axes.annotate(
        f"MAE  {measures['mae']:.3g} {unit_label(unit)}\nRMSE {measures['rmse']:.3g} {unit_label(unit)}",
        xy=(0.04, 0.96),
        xycoords="axes fraction",
        verticalalignment="top",
        bbox={"facecolor": "white", "edgecolor": "0.8", "alpha": 0.85, "boxstyle": "round"},
    )
    if len(names) > 1:
        axes.legend(loc="lower right", ncols=len(names) // 3, markerscale=2.0 if crowded else 1.0)


def _series(quantity: Quantity) -> tuple[str | None, ...]:
    """Return the names of the components that are worth telling apart; those of atoms would only cover each other."""
    if quantity.is_tensor:
        return ELEMENTS
    return ("x", "y", "z") if quantity.shape == (3,) and not quantity.per_atom else (None,)


def parity_figures(
    folder: str | PathLike,
    reference: Mapping[str, Any],
    predicted: Mapping[str, Any],
    units: Mapping[str, str] = MappingProxyType({}),
) -> list[Path]:
    """Draw `parity_<key>.png` for each quantity that is predicted and has labels; return the paths."""
    paths = []
    for key in BY_NAME:
        if key in reference and key in predicted and compared(key, reference[key], predicted[key])[0].size:
            path = Path(folder) / f"parity_{key}.png"
            paths.append(parity(path, key, reference[key], predicted[key], units.get(key)))
    return paths


def loss_curves(
    path: str | PathLike,
    history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, Sequence[float]]],
    units: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Draw training and validation curves against the epoch, one panel per quantity, and return the path.

    Parameters
    ----------
    path : file of the figure.
    history : column -> value per epoch, as Keras records it, where `val_<column>` is the validation value of `column`
        (NaN: not measured in that epoch); or a list of such histories, one for each member of a committee.
    units : column -> unit; MAE and RMSE columns of a quantity have its internal unit by default.

    Raises
    ------
    FigureError : if no value is finite.
    """
    members = [history] if isinstance(history, Mapping) else list(history)
    names = [name for name in dict.fromkeys(n.removeprefix("val_") for m in members for n in m)]
    panels = {name: _curves(members, name) for name in names}
    panels = {name: curves for name, curves in panels.items() if curves}
    if not panels:
        raise FigureError("loss curves need at least one finite value, but the history has none")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(1.0 + 3.6 * n_columns, 0.4 + 3.0 * n_rows)
    from matplotlib.ticker import MaxNLocator

    for index, (name, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(n_rows, n_columns, index)
        for kind, epochs, values in curves:
            color, style = (DARK, "-") if kind == "training" else (LIGHT, "--")
            marker = "o" if len(values) == 1 else None
            axes.plot(epochs, values, style, color=color, marker=marker, linewidth=1.2, label=kind)
        everything = np.concatenate([values for _, _, values in curves])
        if 0 < 3.0 * everything.min() < everything.max():
            axes.set_yscale("log")
            _plain_logarithm(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(labeled(_words(name), units.get(name, _column_unit(name))))
        if "rate" not in name.split("_"):
            handles, labels = axes.get_legend_handles_labels()
            unique = dict(zip(labels, handles))  # one entry for all members
            axes.legend(unique.values(), unique.keys())
    return _save(figure, path)


def learning_curve(
    path: str | PathLike,
    sizes: ArrayLike,
    maes: ArrayLike,
    rmses: ArrayLike,
    unit: str = "cm^-1",
    quantity: str = "D tensor elements",
) -> dict[str, PowerLaw]:
    """Draw errors against training size in log-log (P figure 2) and return the fits, keyed "mae" and "rmse".

    A line is fitted to two or more different sizes. Its 95 % confidence band is drawn for three or more points.

    Parameters
    ----------
    path : file of the figure.
    sizes : (n_points,) numbers of training structures; a size may occur several times.
    maes, rmses : (n_points,) errors, in `unit`.
    unit : unit of the errors.
    quantity : name of the quantity for the axis.

    Raises
    ------
    FigureError : if there are no points.
    """
    figure = new_figure(5.4, 4.4)
    fits = draw_learning_curve(figure.add_subplot(), sizes, maes, rmses, unit, quantity)
    _save(figure, path)
    return fits


def draw_learning_curve(
    axes: Axes, sizes: ArrayLike, maes: ArrayLike, rmses: ArrayLike, unit: str, quantity: str
) -> dict[str, PowerLaw]:
    """Draw the figure of `learning_curve` into axes and return the fits.

    Raises
    ------
    FigureError : if there are no points.
    """
    counts = np.asarray(sizes, dtype=np.float64)
    if not counts.size:
        raise FigureError("a learning curve needs at least one training size, but there is none")
    axes.set_xscale("log")
    axes.set_yscale("log")
    line = np.geomspace(counts.min() / 1.15, counts.max() * 1.15, 100)
    fits = {}
    for name, errors, color, marker, dashes in (("mae", maes, DARK, "o", "-"), ("rmse", rmses, LIGHT, "s", "--")):
        label = name.upper()
        if len(np.unique(counts)) > 1:
            fits[name] = law = fit_power_law(counts, errors)
            label += rf" $\propto$ size$^{{{law.slope:.2f}}}$"
            axes.plot(line, law(line), dashes, color=color, linewidth=1.2)
            if law.n_points > 2:
                axes.fill_between(line, *law.band(line), color=color, alpha=0.18, linewidth=0)
        axes.scatter(counts, errors, s=32, color=color, marker=marker, label=label, zorder=3)
    _tick_sizes(axes, np.unique(counts))
    _plain_logarithm(axes)
    axes.set_xlabel("number of training structures")
    axes.set_ylabel(labeled(f"error of {quantity}", unit))
    axes.legend()
    return fits


def _curves(members: list[Mapping[str, Sequence[float]]], name: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (kind, epochs, values) of all members, without values that are not finite."""
    curves = []
    for member in members:
        for kind, key in (("training", name), ("validation", f"val_{name}")):
            values = np.asarray(member.get(key, ()), dtype=np.float64)
            finite = np.isfinite(values)
            if finite.any():
                curves.append((kind, np.flatnonzero(finite) + 1, values[finite]))
    return curves


def _column_unit(name: str) -> str:
    """Return the unit of a column such as mae_d_tensor or forces_rmse, empty for losses and the like."""
    if not {"mae", "rmse"} & set(name.split("_")):
        return ""
    named = [key for key in BY_NAME if f"_{key}_" in f"_{name}_"]
    return BY_NAME[max(named, key=len)].unit if named else ""


def _words(name: str) -> str:
    """Return a column name as words: mae_d_tensor -> MAE D tensor."""
    spelled = {"mae": "MAE", "rmse": "RMSE", "d": "D"}
    return " ".join(spelled.get(word, word) for word in name.split("_"))


def _tick_sizes(axes: Axes, sizes: np.ndarray) -> None:
    """Label a logarithmic x axis with the sizes themselves, without labels that would overlap."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    apart = (sizes[-1] / sizes[0]) ** 0.1
    shown: list[float] = []
    for size in sizes:
        if not shown or size >= apart * shown[-1]:
            shown.append(float(size))
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _plain_logarithm(axes: Axes) -> None:
    """Label a logarithmic y axis 1, 2, 5, 10, ... if it spans too few decades for powers of ten alone."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_ylim()
    if 4.0 * low < high < 100.0 * low and 1e-3 < low and high < 1e4:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif high < 4.0 * low:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches whose layout leaves room for every label.

    Raises
    ------
    FigureError : if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FigureError("figures need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_grid(figure: Figure) -> None:
    """Draw a faint grid behind the data."""
    for axes in figure.axes:
        axes.grid(True, color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)


def _save(figure: Figure, path: str | PathLike) -> Path:
    draw_grid(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return Path(path)


def unit_label(unit: str) -> str:
    """Return a unit as it appears on axes."""
    return UNIT_LABELS.get(unit, unit)


def labeled(text: str, unit: str) -> str:
    """Return the label of an axis: "text / unit"."""
    return f"{text} / ({unit_label(unit)})" if "/" in unit else f"{text} / {unit_label(unit)}" if unit else text
