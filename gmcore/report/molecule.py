"""The molecule with the principal axes of its mean D tensor: a static picture, and the data of the 3D viewer.

Both show the same view: the axis of D points up, and the molecule is turned around it so that it is broad. Where
scripts run, the viewer (3Dmol.js, in `vendor`) replaces the picture and can animate the modes with the strongest
coupling to D. Without scripts or WebGL, and in print, the picture stays.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from gmcore.evaluation.figures import DARK
from gmcore.quantities import ELEMENTS, UNIQUE
from gmcore.report.blocks import FigureBlock
from gmcore.report.drawing import panel
from gmcore.report.numbers import fixed, unit_text
from gmcore.report.plot import Plot

BOND = 1.25
"""Atoms are drawn bonded up to this many sums of their covalent radii."""

MOTION = 0.6
"""Largest displacement of an atom in an animation, A; modes are not drawn to scale."""

TILT = Rotation.from_euler("yx", (-28.0, 12.0), degrees=True).as_matrix()
"""Turns the view a little, so that no axis points at the reader."""

DASHES = {"z": "-", "x": (0, (5, 2)), "y": (0, (1.5, 1.5))}


def molecule(analysis: dict[str, Any]) -> FigureBlock | None:
    """Return the molecule with the axes of D, None without a molecule or without D."""
    found = analysis.get("molecule")
    state = next((state for state in analysis["states"] if "elements" in state), None)
    if not found or state is None:
        return None
    symbols, positions = found["symbols"], np.array(found["positions"]["value"], dtype=float).reshape(-1, 3)
    eigenvalues, vectors = _principal(state)
    center = positions[found["center"]] if found.get("center") is not None else positions.mean(axis=0)
    turn = _view(positions - center, vectors[:, 2])
    seen = (positions - center) @ turn.T
    axes = dict(zip("xyz", (turn @ vectors).T))
    reach = max(2.0, 0.75 * float(np.linalg.norm(seen, axis=1).max()))
    pairs = _bonds(symbols, seen)
    unit = unit_text(analysis["unit"])
    caption = (
        f"Principal axes of the mean tensor at {state['label']}. z is the axis of D, with the eigenvalue of largest "
        f"magnitude; traceless eigenvalues along x, y and z: {', '.join(fixed(value, 1) for value in eigenvalues)} "
        f"{unit}."
    )
    modes = _modes(analysis, turn)
    if modes:
        caption += (
            " Where scripts run, drag to rotate, and choose one of the modes with the strongest coupling to D to see "
            "its motion; amplitudes are not to scale."
        )
    picture = panel(
        "a",
        "Molecule with the principal axes of the mean D tensor",
        partial(_draw, symbols=symbols, seen=seen, pairs=pairs, axes=axes, reach=reach),
        "square",
    )
    viewer = {
        "symbols": symbols,
        "positions": np.round(seen, 4).tolist(),
        "bonds": [[int(j) for i, j in [*pairs, *((b, a) for a, b in pairs)] if i == k] for k in range(len(symbols))],
        "axes": [{"name": name, "direction": np.round(reach * axis, 4).tolist()} for name, axis in axes.items()],
        "modes": modes,
    }
    return FigureBlock(
        "molecule", "The molecule and the axes of D", "", caption=caption, panels=[picture], viewer=viewer
    )


def _principal(state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues x, y, z (3,) of the mean tensor, z of the largest magnitude, and axes (3, 3) in columns."""
    tensor = np.zeros((3, 3))
    for name, (i, j) in zip(ELEMENTS, UNIQUE):
        tensor[i, j] = tensor[j, i] = state["elements"][name]["mean"]["value"]
    tensor -= np.trace(tensor) / 3.0 * np.eye(3)
    values, vectors = np.linalg.eigh(tensor)
    order = [0, 1, 2] if values[2] >= -values[0] else [2, 1, 0]
    return values[order], vectors[:, order]


def _view(positions: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) after which `up` points nearly up and the molecule is broad."""
    across = positions - np.outer(positions @ up, up)
    right = np.linalg.svd(across + 1e-9 * np.eye(3)[np.arange(len(across)) % 3])[2][0]
    right = right - (right @ up) * up
    if np.linalg.norm(right) < 1e-6:  # all atoms on the axis
        right = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    right /= np.linalg.norm(right)
    return TILT @ np.array([right, up, np.cross(right, up)])


def _bonds(symbols: list[str], positions: np.ndarray) -> list[tuple[int, int]]:
    radii = covalent_radii[[atomic_numbers[symbol] for symbol in symbols]]
    near = cdist(positions, positions) < BOND * (radii[:, None] + radii)
    hydrogen = np.array([symbol == "H" for symbol in symbols])
    near &= ~(hydrogen[:, None] & hydrogen)
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))]


def _modes(analysis: dict[str, Any], turn: np.ndarray) -> list[dict[str, Any]]:
    """Return label and displacements (n_atoms, 3) of the leading modes in the axes of the view, scaled to MOTION."""
    found = analysis["modes"] or {}
    leading = found.get("leading")
    if not leading:
        return []
    strength, frequencies = found["coupling"]["strength"]["value"], found["frequencies"]["value"]
    unit, modes = unit_text(analysis["unit"]), []
    for k, vectors in zip(leading["modes"], leading["displacements"]["value"]):
        moved = np.array(vectors, dtype=float) @ turn.T
        moved *= MOTION / (np.linalg.norm(moved, axis=1).max() or 1.0)
        label = f"{fixed(frequencies[k], 1)} cm⁻¹ (coupling {fixed(strength[k], 2)} {unit})"
        modes.append({"label": label, "vectors": np.round(moved, 3).tolist()})
    return modes


def _draw(
    plot: Plot,
    symbols: list[str],
    seen: np.ndarray,
    pairs: list[tuple[int, int]],
    axes: dict[str, np.ndarray],
    reach: float,
) -> None:
    """Draw bonds, atoms and axes, from back to front."""
    ends = [reach * float(np.abs(axis[:2]).max()) for axis in axes.values()]
    half = 1.08 * max(*ends, float(np.abs(seen[:, :2]).max()))
    figure = plot.axes.figure
    scale = 62.0 * figure.bbox.width / figure.dpi / (2.0 * half)  # points per A, less the margins
    near = (seen[:, 2] - seen[:, 2].min()) / (np.ptp(seen[:, 2]) or 1.0)
    for i, j in pairs:
        middle = 0.5 * (near[i] + near[j])
        style = {"color": str(0.75 - 0.35 * middle), "linewidth": 0.14 * scale, "zorder": 1.0 + middle}
        plot.axes.plot(*seen[[i, j], :2].T, **style)
    for k, symbol in enumerate(symbols):
        number = atomic_numbers[symbol]
        plot.points(
            f"{symbol}{k}",
            seen[k, :1],
            seen[k, 1:2],
            marker="o",
            markersize=0.7 * scale * covalent_radii[number],
            color=jmol_colors[number],
            markeredgecolor="0.2",
            markeredgewidth=0.5,
            zorder=1.02 + near[k],
        )
    for name, axis in axes.items():
        line = np.array([-reach * axis[:2], reach * axis[:2]])
        width = 2.4 if name == "z" else 1.6
        plot.line(f"axis {name}", *line.T, color=DARK, linestyle=DASHES[name], linewidth=width, zorder=1.5)
        plot.axes.annotate(
            name,
            line[1] * 1.08,
            ha="center",
            va="center",
            color=DARK,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
            zorder=4.0,
        )
    plot.axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    plot.axes.set_xlabel("x of the view / Å")
    plot.axes.set_ylabel("y of the view / Å")
    plot.axes.set_axis_off()
