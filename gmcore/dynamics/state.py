"""State of a batch of replicas: independent copies of one system that differ in temperature and seed.

Units are A, fs, amu, eV, K; the factor `gmcore.units.MASS_UNIT` converts m v^2 from amu A^2/fs^2 to eV. Positions are
never wrapped, so that diffusion and bonds across a cell boundary can be followed.

Each replica has its own random numbers, whose key is made of the seed and the temperature of the replica only. Its
trajectory therefore does not depend on the other replicas of the batch. The temperature is part of the key because
replicas with the same noise synchronize, even at two temperatures, and would not be independent samples (Uberuaga,
Anghel, Voter, J. Chem. Phys. 120, 6363, 2004). The noise of a step is a function of the key and the number of the step
(`gmcore.kernels.philox`), so a restart needs nothing else.

A state can be converted to plain arrays and back without loss.

Not supported: replicas of different composition, and sites without mass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from gmcore.errors import GMError, excerpt
from gmcore.units import BOLTZMANN, MASS_UNIT

_EXTENDED = "carried/"  # prefix in checkpoints


class DynamicsError(GMError):
    """Molecular dynamics cannot be run with this input, or a step has failed."""


@dataclass(eq=False)
class State:
    """Everything that a restart needs.

    Attributes
    ----------
    numbers : (n_atoms,) int32, atomic numbers.
    masses : (n_atoms,) float64, amu.
    pbc : (3,) bool.
    positions : (n_replicas, n_atoms, 3) float64, A, never wrapped.
    velocities : (n_replicas, n_atoms, 3) float64, A/fs.
    cells : (n_replicas, 3, 3) float64, A, rows are the cell vectors.
    keys : (n_replicas, 2) uint32, keys of the random numbers.
    step : number of steps since the start.
    extended : variables of thermostats and barostats by name; the first axis is the replica.

    Raises
    ------
    DynamicsError : the shapes do not fit together, or values are not finite.
    """

    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    step: int = 0
    extended: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and values."""
        if self.positions.ndim != 3 or self.positions.shape[2] != 3 or 0 in self.positions.shape:
            raise DynamicsError(f"positions must have shape (n_replicas, n_atoms, 3), got {self.positions.shape}")
        n_replicas, n_atoms = self.positions.shape[:2]
        for name, shape in (
            ("numbers", (n_atoms,)),
            ("masses", (n_atoms,)),
            ("pbc", (3,)),
            ("velocities", (n_replicas, n_atoms, 3)),
            ("cells", (n_replicas, 3, 3)),
            ("keys", (n_replicas, 2)),
        ):
            if getattr(self, name).shape != shape:
                raise DynamicsError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        for name, values in self.extended.items():
            if values.shape[:1] != (n_replicas,) or values.dtype.kind not in "fiub" or not np.isfinite(values).all():
                raise DynamicsError(
                    f"{name} must be finite numbers with one row per replica ({n_replicas}), "
                    f"got {values.dtype} {values.shape}"
                )
        if self.keys.dtype != np.uint32:
            raise DynamicsError(f"keys must be uint32, got {self.keys.dtype}")
        for name in ("masses", "positions", "velocities", "cells"):
            if not np.isfinite(getattr(self, name)).all():
                raise DynamicsError(f"{name} must be finite, got infinite values or NaN")
        if not self.masses.min() > 0.0:
            raise DynamicsError(f"masses must be positive, got {self.masses.min():g} amu")

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return self.positions.shape[0]

    @property
    def n_atoms(self) -> int:
        """Number of atoms of a replica."""
        return self.positions.shape[1]

    def kinetic_energies(self) -> np.ndarray:
        """(n_replicas,) eV: kinetic energy of each replica."""
        # sums along rows give the same bits for any number of replicas; a matrix product may not
        twice = (self.velocities * self.velocities * self.masses[:, None]).reshape(self.n_replicas, -1).sum(axis=1)
        return (0.5 * MASS_UNIT) * twice

    def temperatures(self, n_degrees: int) -> np.ndarray:
        """(n_replicas,) K: 2 E_kin / (n_degrees k_B)."""
        return self.kinetic_energies() / (0.5 * n_degrees * BOLTZMANN)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of everything as plain arrays, for `from_arrays`."""
        names = ("numbers", "masses", "pbc", "positions", "velocities", "cells", "keys")
        plain = {name: getattr(self, name) for name in names} | {"step": np.array(self.step, np.int64)}
        plain |= {_EXTENDED + name: values for name, values in self.extended.items()}
        return {name: np.array(values) for name, values in plain.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> State:
        """Return the state that `arrays` was called on, bit for bit.

        Raises
        ------
        DynamicsError : an array is missing or has the wrong shape or type.
        """
        missing = [name for name in cls.__dataclass_fields__ if name != "extended" and name not in arrays]
        if missing:
            raise DynamicsError(f"a state needs the arrays {', '.join(missing)}, got only {', '.join(sorted(arrays))}")
        return cls(
            np.array(arrays["numbers"], np.int32),
            np.array(arrays["masses"], np.float64),
            np.array(arrays["pbc"], bool),
            np.array(arrays["positions"], np.float64),
            np.array(arrays["velocities"], np.float64),
            np.array(arrays["cells"], np.float64),
            np.array(arrays["keys"]),
            step=int(arrays["step"]),
            extended={
                name.removeprefix(_EXTENDED): np.array(arrays[name]) for name in arrays if name.startswith(_EXTENDED)
            },
        )


def initial_state(
    atoms: Atoms,
    temperatures: ArrayLike,
    seeds: Sequence[int],
    fixed: ArrayLike | None = None,
    masses: ArrayLike | None = None,
) -> State:
    """Return replicas of one system, with velocities from the Maxwell-Boltzmann distribution.

    Without fixed atoms the total momentum is removed; the velocities then have 3 n_atoms - 3 degrees of freedom.

    Parameters
    ----------
    atoms : the structure of all replicas.
    temperatures : (n_replicas,) temperatures of the velocities, K; 0 for a start at rest.
    seeds : (n_replicas,) integers of at least 0.
    fixed : atoms that do not move, as indices or (n_atoms,) bool.
    masses : (n_atoms,) amu (default: masses of `atoms`).

    Raises
    ------
    DynamicsError : there are no atoms, temperatures, seeds or masses are not valid, or two replicas have the same
        temperature and seed.
    """
    n_atoms = len(atoms)
    if n_atoms == 0:
        raise DynamicsError("molecular dynamics needs at least one atom, got none")
    checked = np.asarray(seeds)
    if checked.ndim != 1 or checked.size == 0 or checked.dtype.kind not in "iu" or checked.min() < 0:
        raise DynamicsError(f"seeds must be integers of at least 0, one per replica, got {checked.tolist()}")
    temperatures = per_replica("temperatures", temperatures, len(checked), "K", least=0.0)
    kinds = list(zip(temperatures.tolist(), checked.tolist()))
    twice = next((kind for i, kind in enumerate(kinds) if kind in kinds[:i]), None)
    if twice is not None:
        raise DynamicsError(
            f"replicas must differ in temperature or seed, got {twice[0]:g} K with seed {twice[1]} twice"
        )
    mask = fixed_mask(fixed, n_atoms)
    masses = np.array(atoms.get_masses() if masses is None else masses, np.float64)
    n_replicas = len(checked)
    state = State(
        atoms.numbers.astype(np.int32),
        masses,
        np.array(atoms.pbc, bool),
        np.repeat(atoms.positions[None].astype(np.float64), n_replicas, axis=0),
        np.zeros((n_replicas, n_atoms, 3)),
        np.repeat(atoms.cell.array[None].astype(np.float64), n_replicas, axis=0),
        np.array([np.random.SeedSequence(_entropy(*kind), spawn_key=(1,)).generate_state(2) for kind in kinds]),
    )
    for k, kind in enumerate(kinds):
        generator = np.random.Generator(np.random.PCG64(_entropy(*kind)))
        widths = np.sqrt(BOLTZMANN * temperatures[k] / (MASS_UNIT * masses))
        state.velocities[k] = generator.standard_normal((n_atoms, 3)) * widths[:, None]
        if mask.any():
            state.velocities[k, mask] = 0.0
        else:
            state.velocities[k] -= masses @ state.velocities[k] / masses.sum()
    return state


def fixed_mask(fixed: ArrayLike | None, n_atoms: int) -> np.ndarray:
    """(n_atoms,) bool: mask of the fixed atoms, which are given by indices, as a mask, or as None for no atom.

    Raises
    ------
    DynamicsError : `fixed` is neither of these, an index is out of range, or all atoms are fixed.
    """
    chosen = np.zeros(0, int) if fixed is None else np.asarray(fixed)
    if chosen.size == 0:
        return np.zeros(n_atoms, bool)
    if chosen.dtype == bool and chosen.shape == (n_atoms,):
        mask = chosen.copy()
    elif chosen.dtype.kind in "iu" and chosen.ndim == 1 and -n_atoms <= chosen.min() and chosen.max() < n_atoms:
        mask = np.zeros(n_atoms, bool)
        mask[chosen] = True
    else:
        raise DynamicsError(
            f"fixed atoms must be indices from 0 to {n_atoms - 1} or a mask of {n_atoms} booleans, "
            f"got {chosen.tolist()}"
        )
    if mask.all():
        raise DynamicsError(f"at least one atom must be free to move, got all {n_atoms} atoms fixed")
    return mask


def per_replica(name: str, values: ArrayLike, n_replicas: int, unit: str, least: float | None = None) -> np.ndarray:
    """(n_replicas,) float64: one value per replica, checked to be positive, or at least `least` if that is given.

    Parameters
    ----------
    name : name of the values, for messages.
    values : one number for all replicas, or one per replica.
    n_replicas : number of replicas.
    unit : unit of the values, for messages.
    least : smallest allowed value (default: any positive value).

    Raises
    ------
    DynamicsError : the values are not numbers, have another shape, or are out of range.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DynamicsError(f"{name} must be numbers, got {excerpt(values)}") from None
    if array.shape not in ((), (n_replicas,)):
        raise DynamicsError(f"{name} must be one number or one per replica ({n_replicas}), got shape {array.shape}")
    allowed = array > 0.0 if least is None else array >= least
    if not (allowed & np.isfinite(array)).all():
        rule = "positive" if least is None else f"at least {least:g}"
        raise DynamicsError(f"{name} must be {rule} and finite, got {array.tolist()} {unit}".rstrip())
    return np.broadcast_to(array, n_replicas).copy()


def _entropy(temperature: float, seed: int) -> list[int]:
    """Seed of the random numbers of a replica; the bits of the temperature are part of it."""
    return [seed, int(np.float64(temperature).view(np.uint64))]
