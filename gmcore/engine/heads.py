"""Heads: from the network's outputs m_i (n_atoms, n_outputs), after scale and shift, to the quantities of a structure.

    energy      E = sum_i m_i, in double precision
    charges     q_i = m_i, or with conserved total charge q_i = m_i + (Q - sum m)/N;  dipole = sum q_i (r_i - o)
    d_tensor    D = sum_i m_i (3 rhat_i rhat_i^T - 1)            basis "positions" (P eq. 7)
                D = sum_i sum_c m_ic A_ic                        basis "moments"
    tensor      P = sum_i m_i rhat_i rhat_i^T                    basis "positions"
                P = sum_i (sum_c m_ic A_ic + m_i,last 1)         basis "moments"

rhat_i = (r_i - rbar)/|r_i - rbar| with rbar the unweighted mean position; an atom closer to rbar than `COINCIDENT`, or
the option "core_radius" (A), has no direction and contributes nothing. This basis needs molecules that are not cut by a
cell boundary.

The moment channels A_ic are symmetric and traceless: first M2_s - tr(M2_s)/3 for every radial channel s, then
sym(M1_s M1_t) - (M1_s . M1_t)/3 for s <= t. They need no origin, so wrapped and unwrapped structures are the same.

The gradient of <W, D>, W (3, 3) one cotangent per structure, comes in two parts: <W, dD/dm_i>, which does not depend on
m and goes down the network (`output_cotangents`), and what acts on rhat or the moments directly (`basis_cotangents`).

Formulas: docs/method.md, sections 5 and 6.4. The TensorFlow twin is `gmkeras.heads`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import atomic_masses

from gmcore.engine.settings import HeadOptions, HeadSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError, excerpt
from gmcore.quantities import BY_NAME, HEAD_KINDS, predicted_by

COINCIDENT = 1e-6  # A
TAKEN = tuple(quantity.name for kind in ("energy", "charges") for quantity in predicted_by(kind))
CHUNK = 1024  # atoms whose channel tensors exist at a time


def n_moment_channels(n_radial: int) -> int:
    """Number of symmetric traceless tensors that the moments of one atom give."""
    return n_radial + n_radial * (n_radial + 1) // 2


def count_outputs(kind: str, options: HeadOptions, n_radial: int) -> int:
    """Return the number of outputs of the network, per atom, that a head takes.

    One, or with the basis "moments" one per channel and one more for a tensor that is not traceless.
    """
    if options.basis != "moments":
        return 1
    return n_moment_channels(n_radial) + (kind == "tensor")


def output_units(heads: Sequence[HeadSettings]) -> dict[str, str]:
    """What a model with these heads predicts, in this order, and in which unit."""
    units = {}
    for head in heads:
        if head.kind in ("d_tensor", "tensor"):  # may have another name than their kind, and another unit
            units[head.name] = head.unit or BY_NAME[head.kind].unit or "1"
        else:
            units |= {quantity.name: quantity.unit for quantity in predicted_by(head.kind)}
    return units


def check_heads(heads: Sequence[HeadSettings], n_radial: int) -> None:
    """Refuse heads that contradict themselves or each other.

    Raises
    ------
    GMError : no head, unknown kind, wrong number of outputs, an option that the head cannot have, or two heads with
        the same outputs.
    """
    if not heads:
        raise GMError("a model must have at least one head, got none")
    taken: list[str] = []
    for head in heads:
        if head.kind not in HEAD_KINDS:
            raise GMError(f"the kind of a head must be one of {', '.join(HEAD_KINDS)}, got {excerpt(head.kind)}")
        head.options.check(head.name, head.kind)
        n_outputs = count_outputs(head.kind, head.options, n_radial)
        if head.n_outputs != n_outputs:
            raise GMError(f"the number of outputs of head {head.name} must be {n_outputs}, got {head.n_outputs}")
        outputs = list(output_units([head]))
        if set(outputs) & set(taken) or (head.kind in ("d_tensor", "tensor") and head.name in TAKEN):
            raise GMError(f"the outputs of two heads must differ, got {', '.join(outputs)} again from head {head.name}")
        taken += outputs


def head_columns(heads: Sequence[HeadSettings]) -> Iterator[tuple[HeadSettings, slice]]:
    """Heads with the columns of the network's outputs that are theirs."""
    start = 0
    for head in heads:
        yield head, slice(start, start + head.n_outputs)
        start += head.n_outputs


def structure_sum(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum over the atoms of each structure, (n_structures, ...) float64; empty structures give zero."""
    total = np.zeros((len(offsets) - 1, *values.shape[1:]))
    filled = np.diff(offsets) > 0
    if filled.any():
        total[filled] = np.add.reduceat(values.astype(np.float64, copy=False), offsets[:-1][filled], axis=0)
    return total


def centers(batch: Batch, weights: np.ndarray) -> np.ndarray:
    """Weighted mean position of each structure, (n_structures, 3) A; zero where there are no atoms."""
    total = structure_sum(weights, batch.offsets)
    moment = structure_sum(weights[:, None] * batch.positions, batch.offsets)
    return moment / np.where(total > 0.0, total, 1.0)[:, None]


def directions(batch: Batch, core_radius: float = COINCIDENT) -> np.ndarray:
    """rhat (n_atoms, 3): unit vectors from the mean position; zero for an atom within `core_radius` (A) of it."""
    rhat, _ = _directions_and_distances(batch, core_radius)
    return rhat


def _directions_and_distances(batch: Batch, core_radius: float) -> tuple[np.ndarray, np.ndarray]:
    """rhat as of `directions`, and |r - rbar| (n_atoms, 1), infinite within the core, where nothing changes."""
    away = batch.positions - centers(batch, np.ones(batch.n_atoms))[batch.structure]
    distance = np.sqrt((away * away).sum(axis=1, keepdims=True))
    distance = np.where(distance > core_radius, distance, np.inf)
    return away / distance, distance


def _core_radius(head: HeadSettings) -> float:
    return COINCIDENT if head.options.core_radius is None else head.options.core_radius


def moment_channels(moments: np.ndarray) -> np.ndarray:
    """A_ic, (n_atoms, n_channels, 3, 3) float64, of packed moments (n_atoms, n_radial, 16)."""
    m = moments.astype(np.float64)
    n_atoms, n_radial = m.shape[:2]
    r, s = np.triu_indices(n_radial)
    first = m[:, :, 1:4]
    tensors = np.empty((n_atoms, n_moment_channels(n_radial), 3, 3))
    second = tensors[:, :n_radial]
    for k, (a, b) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)], start=4):
        second[..., a, b] = second[..., b, a] = m[..., k]
    second[..., 2, 2] = m[..., 0] - m[..., 4] - m[..., 7]
    product = first[:, r, :, None] * first[:, s, None, :]
    tensors[:, n_radial:] = 0.5 * (product + product.swapaxes(-1, -2))
    trace = np.trace(tensors, axis1=-2, axis2=-1)
    tensors -= trace[..., None, None] / 3.0 * np.eye(3)
    return tensors


def head_outputs(
    head: HeadSettings, m: np.ndarray, batch: Batch, moments: np.ndarray, total_charge: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The quantities of one head, but for forces and stress.

    Parameters
    ----------
    m : (n_atoms, n_outputs) float64.
    moments : (n_atoms, n_radial, 16), read by the moment basis only.
    total_charge : (n_structures,), e; read only where the charges are to sum up to it.

    Returns
    -------
    energy (n_structures,); charges (n_atoms,) and dipole (n_structures, 3); or, under the name of the head, the tensor
    (n_structures, 3, 3), symmetric, for d_tensor also traceless.

    Raises
    ------
    GMError : the total charge is needed and not known.
    """
    if head.kind == "energy":
        return {"energy": structure_sum(m[:, 0], batch.offsets)}
    if head.kind == "charges":
        return _charges(head, m[:, 0], batch, total_charge)
    if head.options.basis == "positions":
        rhat = directions(batch, _core_radius(head))
        tensor = rhat[:, :, None] * rhat[:, None, :]
        if head.kind == "d_tensor":
            tensor = 3.0 * tensor - (rhat * rhat).sum(axis=1)[:, None, None] * np.eye(3)
        return {head.name: structure_sum(m[:, :, None] * tensor, batch.offsets)}
    return {head.name: structure_sum(_moment_tensors(head, m, moments), batch.offsets)}


def head_changes(head: HeadSettings, changes: np.ndarray, batch: Batch, moments: np.ndarray) -> dict[str, np.ndarray]:
    """Change of the quantities of one head by changes of m, in which they are linear.

    Parameters
    ----------
    changes : (n_draws, n_atoms, n_outputs) float64, each a change of m.
    moments : as in `head_outputs`.

    Returns
    -------
    As `head_outputs`, with a first axis n_draws.
    """
    if head.options.basis == "moments":
        n_channels = n_moment_channels(moments.shape[1])
        flat = np.empty((batch.n_atoms, len(changes), 9))
        for i in range(0, batch.n_atoms, CHUNK):
            channels = moment_channels(moments[i : i + CHUNK]).reshape(-1, n_channels, 9)
            flat[i : i + CHUNK] = changes[:, i : i + CHUNK, :n_channels].swapaxes(0, 1) @ channels
        tensors = flat.reshape(batch.n_atoms, len(changes), 3, 3)
        if head.kind == "tensor":
            tensors += changes[..., n_channels].T[..., None, None] * np.eye(3)
        return {head.name: structure_sum(tensors, batch.offsets).swapaxes(0, 1)}
    neutral = np.zeros(batch.n_structures)  # a change leaves the total charge as it is
    parts = [head_outputs(head, change, batch, moments, neutral) for change in changes]
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def _moment_tensors(head: HeadSettings, m: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """sum_c m_ic A_ic of every atom, (n_atoms, 3, 3)."""
    n_channels = n_moment_channels(moments.shape[1])
    weights = m[:, :n_channels]
    tensors = np.zeros((len(m), 3, 3))
    for i in range(0, len(m), CHUNK):
        channels = moment_channels(moments[i : i + CHUNK])
        np.einsum("ic,icab->iab", weights[i : i + CHUNK], channels, out=tensors[i : i + CHUNK])
    if head.kind == "tensor":
        tensors += m[:, n_channels, None, None] * np.eye(3)
    return tensors


def output_cotangents(head: HeadSettings, batch: Batch, moments: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
    """Derivative of sum <W, tensor> over the structures in the outputs m, (n_atoms, n_outputs).

    Parameters
    ----------
    head : of kind d_tensor or tensor.
    moments : (n_atoms, n_radial, 16), read by the moment basis only.
    cotangents : W (n_structures, 3, 3).
    """
    w = cotangents[batch.structure]
    trace = np.trace(w, axis1=1, axis2=2)
    if head.options.basis == "positions":
        rhat = directions(batch, _core_radius(head))
        along = np.einsum("ia,iab,ib->i", rhat, w, rhat)
        if head.kind == "d_tensor":
            along = 3.0 * along - (rhat * rhat).sum(axis=1) * trace
        return along[:, None]
    n_channels = n_moment_channels(moments.shape[1])
    g_m = np.empty((batch.n_atoms, head.n_outputs))
    for i in range(0, batch.n_atoms, CHUNK):
        channels = moment_channels(moments[i : i + CHUNK])
        np.einsum("iab,icab->ic", w[i : i + CHUNK], channels, out=g_m[i : i + CHUNK, :n_channels])
    if head.kind == "tensor":
        g_m[:, n_channels] = trace
    return g_m


def basis_cotangents(
    head: HeadSettings, m: np.ndarray, batch: Batch, moments: np.ndarray, cotangents: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Derivatives of sum <W, tensor> at fixed outputs m (n_atoms, n_outputs).

    Returns
    -------
    In positions (n_atoms, 3), per A, and in the moments (n_atoms, n_radial, 16); None for the one that the basis does
    not read.
    """
    w = 0.5 * (cotangents + cotangents.swapaxes(1, 2))[batch.structure]
    if head.options.basis == "positions":
        return _position_cotangents(head, m, batch, w), None
    n_radial = moments.shape[1]
    n_channels = n_moment_channels(n_radial)
    weights = m[:, :n_channels]
    w = w - np.trace(w, axis1=1, axis2=2)[:, None, None] / 3.0 * np.eye(3)
    g_moments = np.zeros((*moments.shape[:2], 16))
    second = weights[:, :n_radial]
    g_moments[..., 0] = second * w[:, None, 2, 2]  # zz = M0 - xx - yy
    for k, (a, b) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)], start=4):
        g_moments[..., k] = second * (2.0 * w[:, None, a, b] if a != b else (w[:, a, a] - w[:, 2, 2])[:, None])
    along = moments[:, :, 1:4].astype(np.float64) @ w
    for c, (r, s) in enumerate(zip(*np.triu_indices(n_radial)), start=n_radial):
        g_moments[:, r, 1:4] += weights[:, c, None] * along[:, s]
        g_moments[:, s, 1:4] += weights[:, c, None] * along[:, r]
    return None, g_moments


def _position_cotangents(head: HeadSettings, m: np.ndarray, batch: Batch, w: np.ndarray) -> np.ndarray:
    """Through rhat = (r - rbar)/|r - rbar|; the length of rhat is constant, so the -1 of the D head plays no part."""
    rhat, distance = _directions_and_distances(batch, _core_radius(head))
    slope = (6.0 if head.kind == "d_tensor" else 2.0) * m * np.einsum("iab,ib->ia", w, rhat)
    g_away = (slope - (slope * rhat).sum(axis=1, keepdims=True) * rhat) / distance
    mean = structure_sum(g_away, batch.offsets) / np.maximum(np.diff(batch.offsets), 1)[:, None]
    return g_away - mean[batch.structure]


def _charges(head: HeadSettings, q: np.ndarray, batch: Batch, total_charge: np.ndarray | None) -> dict[str, np.ndarray]:
    if head.options.conserve:
        total = head.options.total_charge if total_charge is None else total_charge
        if total is None:
            raise GMError(
                "the charges of this model sum up to the total charge, which must be given: total_charge=... or "
                "atoms.info['total_charge'], got none"
            )
        n_atoms = np.diff(batch.offsets)
        excess = np.broadcast_to(total, n_atoms.shape) - structure_sum(q, batch.offsets)
        q = q + (excess / np.maximum(n_atoms, 1))[batch.structure]
    origin = np.zeros(3)
    if head.options.origin == "center_of_mass":
        origin = centers(batch, atomic_masses[batch.numbers])[batch.structure]
    return {"charges": q, "dipole": structure_sum(q[:, None] * (batch.positions - origin), batch.offsets)}
