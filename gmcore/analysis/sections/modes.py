"""Harmonic modes of a run: frequencies, dD/dq, and how much of the motion of D they explain at each temperature.

The structure that D was computed for is relaxed with the potential of the run and rotated onto the reference of the
run, so that derivatives are in the frame of the elements. Along the run, mode coordinates come from the positions of
the same samples as D. For each mode the coherence of D(t) and E(t) with q_k(t) at the frequency of the mode is given (0
to 1; unrelated series give about 1/K for K segments), and for all modes together the share of the variance of the
elements that the expansion of D to second order in q explains.

In a crystal D and its derivatives are those of the first molecule, in the axes of the crystal. Not supported: mode
coordinates along a run of a crystal whose cell changes, or of a cluster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from gmcore.analysis.couplings import TensorExpansion, mode_coordinates, thermal_ratio
from gmcore.analysis.mode_spectra import cross_spectra, element_shares
from gmcore.analysis.modes import Modes, harmonic_modes, thermal_variance
from gmcore.analysis.records import axis, curve, plain, quantity
from gmcore.analysis.samples import Samples, SamplesError
from gmcore.analysis.spectra import HANN_FWHM
from gmcore.anisotropy import zfs_parameters
from gmcore.config.analysis import Analysis
from gmcore.dynamics.relaxation import relax
from gmcore.evaluation.metrics import unique_components
from gmcore.model import Model
from gmcore.molecules.superposition import align
from gmcore.quantities import ELEMENTS, UNIQUE
from gmcore.units import PER_FS

LEADING = 8
"""Number of modes whose displacements are kept: those with the strongest coupling, which the report animates."""

CURVE_POINTS = 61
"""Number of temperatures of a curve."""

PIECES = 5
"""A coherence is a mean over at least 2 PIECES - 1 segments; a short run has short segments and broad lines."""


def find_modes(atoms: Atoms, potential: Model, settings: Analysis, reference: np.ndarray | None) -> Modes:
    """Return the modes of the nearest minimum, rotated onto reference positions (n_atoms, 3) A if given."""
    relaxed = relax(atoms, potential, settings.max_force)
    if reference is not None:
        masses = atoms.get_masses()
        rotation = align(relaxed.positions[None], reference, masses)[0]
        relaxed.positions = relaxed.positions @ rotation.T
    return harmonic_modes(relaxed, potential)


def describe_modes(modes: Modes) -> dict[str, Any]:
    """Return the frequencies, the share of each element in each mode, and the relaxed structure."""
    return {
        "summary": modes.summary(),
        "frequencies": quantity(modes.frequencies, "cm^-1", "harmonic frequencies, imaginary ones negative"),
        "rigid": quantity(modes.rigid_frequencies, "cm^-1", "frequencies of rigid motions, zero in exact arithmetic"),
        "max_force": quantity(modes.max_force, "eV/A", "largest force on an atom of the relaxed structure"),
        "shares": quantity(
            {symbol: np.round(share, 4) for symbol, share in element_shares(modes).items()},
            "",
            "share of each element in the kinetic energy of each mode",
        ),
        "structure": {
            "symbols": modes.atoms.get_chemical_symbols(),
            "positions": quantity(modes.atoms.positions, "A", "relaxed positions"),
        },
    }


def describe_coupling(expansion: TensorExpansion, factor: float, unit: str) -> dict[str, Any]:
    """Return D at the minimum and its derivatives along the modes, in `unit`: values of the model times `factor`."""
    found = zfs_parameters(expansion.value)
    slope_d, slope_e = expansion.slopes()
    first = unique_components(expansion.first) * factor
    return {
        "D": quantity(factor * found.d, unit, "D of the relaxed structure"),
        "E": quantity(factor * found.e, unit, "E of the relaxed structure"),
        "strength": quantity(
            factor * expansion.strength,
            unit,
            "Frobenius norm of dD/dq",
            committee=factor * np.linalg.norm(expansion.first_std, axis=(1, 2)),
        ),
        "dD": quantity(factor * slope_d, unit, "dD/dq of the parameter D, to first order"),
        "dE": quantity(factor * np.abs(slope_e), unit, "|dE/dq| of the parameter E, to first order"),
        "elements": quantity(first, unit, f"dD/dq of the elements {', '.join(ELEMENTS)}"),
    }


def harmonic_expectation(expansion: TensorExpansion, temperature: float, factor: float, unit: str) -> dict[str, Any]:
    """Return D, E and their widths from the expansion at a temperature (K), for classical and quantum modes.

    Values are those of the model times `factor`, in `unit`.
    """
    words = {
        "D_of_mean": "D of <tensor>, {} harmonic modes, second order",
        "E_of_mean": "E of <tensor>, {} harmonic modes, second order",
        "D_width": "width of D, {} harmonic modes, first order",
        "E_width": "width of E, {} harmonic modes, first order",
    }
    return {
        kind: {
            name: quantity(factor * value, unit, words[name].format(kind))
            for name, value in _harmonic(expansion, temperature, quantum).items()
        }
        for kind, quantum in (("classical", False), ("quantum", True))
    }


def harmonic_curves(expansion: TensorExpansion, highest: float, factor: float, unit: str) -> dict[str, Any]:
    """Return the values of `harmonic_expectation` as curves from 0 K to the highest temperature (K)."""
    temperatures = np.linspace(0.0, highest, CURVE_POINTS)
    result: dict[str, Any] = {}
    for kind, quantum in (("classical", False), ("quantum", True)):
        found = [_harmonic(expansion, float(temperature), quantum) for temperature in temperatures]
        result[kind] = {
            name: curve(
                axis("temperature", "K", temperatures),
                axis(name, unit, [factor * values[name] for values in found]),
                f"{name} of {kind} harmonic modes",
            )
            for name in found[0]
        }
    return result


def leading_modes(modes: Modes, expansion: TensorExpansion, atoms: np.ndarray) -> dict[str, Any]:
    """Return the modes with the strongest coupling to D, and the displacements of some atoms (indices) in them."""
    strength = np.where(np.isfinite(expansion.strength), expansion.strength, -np.inf)
    leading = np.sort(np.argsort(-strength)[: min(LEADING, int(np.isfinite(strength).sum()))])
    return {
        "modes": [int(k) for k in leading],
        "displacements": quantity(
            np.round(modes.displacements[leading][:, atoms], 5), "A", "displacements of the atoms per unit of q"
        ),
    }


def _harmonic(expansion: TensorExpansion, temperature: float, quantum: bool) -> dict[str, float]:
    """Return D, E and their widths at a temperature (K), in the unit of the expansion."""
    mean = zfs_parameters(expansion.thermal_mean(temperature, quantum))
    variance = thermal_variance(expansion.frequencies, temperature, quantum)
    widths = [float(np.sqrt(np.nansum(variance * slope**2))) for slope in expansion.slopes()]
    return {"D_of_mean": float(mean.d), "E_of_mean": float(mean.e), "D_width": widths[0], "E_width": widths[1]}


def samples_of_crystal(samples: Samples) -> tuple[np.ndarray, np.ndarray, float]:
    """Return positions and D in the axes of a crystal at the times at which both were recorded, and the interval.

    Returns
    -------
    positions : (n_replicas, n, n_atoms, 3) A.
    tensors : (n_replicas, n, 3, 3) cm^-1, of the first molecule.
    interval : fs.

    Raises
    ------
    SamplesError : for a cluster or a cell that changes, or if the common times are too few or not equally spaced.
    """
    trajectory = samples.trajectory
    if not trajectory.pbc.all() or trajectory.ensemble == "npt":
        raise SamplesError("mode coordinates are computed only for molecules and for crystals of constant cell")
    of_positions, of_tensors = (np.round(samples.times(name), 6) for name in ("position", "d_tensor"))
    common, rows, others = np.intersect1d(of_positions, of_tensors, return_indices=True)
    if len(common) < 4 * PIECES or np.ptp(np.diff(common)) > 1e-6:
        raise SamplesError(f"positions and D must be recorded together at least {4 * PIECES} times at equal intervals")
    positions, tensors = samples.series("position")[:, rows], samples.series("d_tensor")[:, others, 0]
    return positions, tensors, float(common[1] - common[0])


def along_run(
    modes: Modes,
    expansion: TensorExpansion,
    positions: np.ndarray,
    tensors: np.ndarray,
    interval: float,
    temperature: float,
    resolution: float,
) -> dict[str, Any]:
    """Return the coherence of D and E with each mode, the explained variance, and the thermal energy of the modes.

    Parameters
    ----------
    modes, expansion : the modes and the expansion of D in them.
    positions : (n_series, n, n_atoms, 3) A, sampled every `interval` fs.
    tensors : (n_series, n, 3, 3) in the unit of the expansion and the frame of the modes, sampled with the positions.
    interval : fs.
    temperature : K, as measured.
    resolution : cm^-1, of the coherence, if the run is long enough.
    """
    n_segment = min(int(np.ceil(HANN_FWHM * PER_FS / (interval * resolution))), positions.shape[1] // PIECES)
    real = modes.frequencies > 0.0
    coherences, n_segments = [], 0
    coordinates = np.empty((*positions.shape[:2], len(modes)))
    spread = unique_components(tensors)
    residue = np.empty_like(spread)
    for k, (frames, series) in enumerate(zip(positions, tensors)):
        q = mode_coordinates(frames, modes)
        coordinates[k] = q
        residue[k] = spread[k] - unique_components(expansion.predict(q))
        q[:, ~real] = 0.0
        found = zfs_parameters(series)
        spectra = cross_spectra(np.column_stack([found.d, found.e]), q, interval, n_segment)
        at = np.abs(spectra.frequencies[:, None] - modes.frequencies).argmin(axis=0)
        coherences.append(spectra.coherence[at, :, np.arange(len(modes))])
        n_segments += spectra.n_segments
    q = coordinates.reshape(-1, len(modes))
    weights = np.array([1.0 if i == j else 2.0 for i, j in UNIQUE])
    explained = 1.0 - (residue.var(axis=(0, 1)) @ weights) / (spread.var(axis=(0, 1)) @ weights)
    of_d, of_e = np.where(real, np.mean(coherences, axis=0).T, np.nan)
    return {
        "coherence": {
            "D": quantity(of_d, "", "coherence of D with each mode at its frequency"),
            "E": quantity(of_e, "", "coherence of E with each mode at its frequency"),
            "resolution": quantity(
                HANN_FWHM * PER_FS / (interval * n_segment), "cm^-1", "full width at half maximum of a line"
            ),
            "floor": quantity(1.0 / n_segments * len(positions), "", "coherence of unrelated series"),
        },
        "explained": quantity(explained, "", "share of the variance of D that the expansion in the modes explains"),
        "thermal_ratio": quantity(
            plain(np.round(thermal_ratio(q, modes.frequencies, temperature), 4)),
            "",
            "<q^2> of each mode over kT/(hbar omega): 1 for harmonic modes in equilibrium",
        ),
    }
