"""State of a batch of replicas: independent copies of one system that differ in temperature and seed.

Units are A, fs, amu, eV, K, so that m v^2 in amu A^2/fs^2 needs the factor `gmcore.units.MASS_UNIT` to become eV.
Positions are never wrapped: diffusion and bonds across a cell boundary stay readable.

Every replica owns a random generator (PCG64) that is seeded with the replica's own seed and temperature and nothing
else, so that its path does not depend on who else is in the batch. The temperature takes part because replicas that
share their noise move in step, even at two temperatures, and would be no independent samples (Uberuaga, Anghel, Voter,
J. Chem. Phys. 120, 6363, 2004).

A state round-trips through plain arrays without loss, generators included. NumPy keeps PCG64 the same for good, but
not how normal deviates are made of it: exact continuation needs the NumPy that the run was started with.

Not supported: replicas of different composition, extended atoms, and massless sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from gmcore.errors import GMError
from gmcore.units import BOLTZMANN, MASS_UNIT

_CARRIED = "carried/"


class DynamicsError(GMError):
    """Input that molecular dynamics cannot be run with."""


@dataclass(eq=False)
class State:
    """Everything that a restart needs.

    Attributes
    ----------
    numbers : (n_atoms,) int32, atomic numbers.
    masses : (n_atoms,) float64, amu.
    pbc : (3,) bool.
    positions, velocities : (n_replicas, n_atoms, 3) float64, A (never wrapped) and A/fs.
    cells : (n_replicas, 3, 3) float64, A, rows are the cell vectors.
    generators : one random generator (PCG64) per replica.
    step : steps done since the start.
    carried : variables of thermostats and barostats by name; the first axis is the replica.

    Raises
    ------
    DynamicsError : shapes that do not fit each other, or values that are not finite.
    """

    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    cells: np.ndarray
    generators: list[np.random.Generator]
    step: int = 0
    carried: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.positions.ndim != 3 or self.positions.shape[2] != 3 or 0 in self.positions.shape:
            raise DynamicsError(f"positions must have shape (n_replicas, n_atoms, 3), got {self.positions.shape}")
        n_replicas, n_atoms = self.positions.shape[:2]
        for name, shape in (
            ("numbers", (n_atoms,)),
            ("masses", (n_atoms,)),
            ("pbc", (3,)),
            ("velocities", (n_replicas, n_atoms, 3)),
            ("cells", (n_replicas, 3, 3)),
        ):
            if getattr(self, name).shape != shape:
                raise DynamicsError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if len(self.generators) != n_replicas:
            raise DynamicsError(f"there must be a generator per replica ({n_replicas}), got {len(self.generators)}")
        for name in ("masses", "positions", "velocities", "cells"):
            if not np.isfinite(getattr(self, name)).all():
                raise DynamicsError(f"{name} must be finite, got values that are not")
        if not self.masses.min() > 0.0:
            raise DynamicsError(f"masses must be positive, got {self.masses.min():g} amu")

    @property
    def n_replicas(self) -> int:
        return self.positions.shape[0]

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[1]

    def kinetic_energies(self) -> np.ndarray:
        """(n_replicas,) eV."""
        # summed along rows: the same bits whatever the number of replicas, which a matrix product does not promise
        twice = (self.velocities * self.velocities * self.masses[:, None]).reshape(self.n_replicas, -1).sum(axis=1)
        return (0.5 * MASS_UNIT) * twice

    def temperatures(self, n_degrees: int) -> np.ndarray:
        """(n_replicas,) K: 2 E_kin / (n_degrees k_B)."""
        return self.kinetic_energies() / (0.5 * n_degrees * BOLTZMANN)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything as plain arrays, for `from_arrays`."""
        plain = {name: getattr(self, name) for name in ("numbers", "masses", "pbc", "positions", "velocities", "cells")}
        plain["generators"] = np.array([_words(generator) for generator in self.generators], np.uint64)
        plain["step"] = np.array(self.step, np.int64)
        plain |= {_CARRIED + name: values for name, values in self.carried.items()}
        return {name: np.array(values) for name, values in plain.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> State:
        """The state that `arrays` was called on, bit for bit.

        Raises
        ------
        DynamicsError : an array is missing or does not fit.
        """
        missing = [name for name in cls.__dataclass_fields__ if name != "carried" and name not in arrays]
        if missing:
            raise DynamicsError(f"a state needs {', '.join(missing)}, got only {', '.join(sorted(arrays))}")
        words = np.asarray(arrays["generators"])
        if words.dtype != np.uint64 or words.ndim != 2 or words.shape[1] != 6:
            raise DynamicsError(f"generators must be uint64 (n_replicas, 6), got {words.dtype} {words.shape}")
        return cls(
            np.array(arrays["numbers"], np.int32),
            np.array(arrays["masses"], np.float64),
            np.array(arrays["pbc"], bool),
            *(np.array(arrays[name], np.float64) for name in ("positions", "velocities", "cells")),
            generators=[_generator(row) for row in words],
            step=int(arrays["step"]),
            carried={
                name.removeprefix(_CARRIED): np.array(arrays[name]) for name in arrays if name.startswith(_CARRIED)
            },
        )


def initial_state(
    atoms: Atoms,
    temperatures: ArrayLike,
    seeds: Sequence[int],
    fixed: ArrayLike | None = None,
    masses: ArrayLike | None = None,
) -> State:
    """Replicas of one system at rest or with velocities from the Maxwell-Boltzmann distribution.

    Without fixed atoms the total momentum is removed, so that velocities have 3 n_atoms - 3 degrees of freedom.

    Parameters
    ----------
    temperatures : (n_replicas,) K, of the velocities; 0 for a start at rest.
    seeds : (n_replicas,) integers from 0.
    fixed : atoms that do not move, as indices or (n_atoms,) bool.
    masses : (n_atoms,) amu; those of `atoms` if not given.

    Raises
    ------
    DynamicsError : no atoms, bad temperatures, seeds or masses, or two replicas with the same temperature and seed.
    """
    n_atoms = len(atoms)
    if n_atoms == 0:
        raise DynamicsError("molecular dynamics needs at least one atom, got none")
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or seeds.size == 0 or seeds.dtype.kind not in "iu" or seeds.min() < 0:
        raise DynamicsError(f"seeds must be integers from 0, one per replica, got {seeds.tolist()}")
    temperatures = per_replica("temperatures", temperatures, len(seeds), "K", least=0.0)
    kinds = list(zip(temperatures.tolist(), seeds.tolist()))
    twice = next((kind for i, kind in enumerate(kinds) if kind in kinds[:i]), None)
    if twice is not None:
        raise DynamicsError(f"replicas must differ in temperature or seed, got {twice[0]:g} K, seed {twice[1]} twice")
    mask = fixed_mask(fixed, n_atoms)
    masses = np.array(atoms.get_masses() if masses is None else masses, np.float64)
    n_replicas = len(seeds)
    state = State(
        atoms.numbers.astype(np.int32),
        masses,
        np.array(atoms.pbc, bool),
        np.repeat(atoms.positions[None].astype(np.float64), n_replicas, axis=0),
        np.zeros((n_replicas, n_atoms, 3)),
        np.repeat(atoms.cell.array[None].astype(np.float64), n_replicas, axis=0),
        [np.random.Generator(np.random.PCG64(_entropy(*kind))) for kind in kinds],
    )
    for k, generator in enumerate(state.generators):
        widths = np.sqrt(BOLTZMANN * temperatures[k] / (MASS_UNIT * masses))
        state.velocities[k] = generator.standard_normal((n_atoms, 3)) * widths[:, None]
        if mask.any():
            state.velocities[k, mask] = 0.0
        else:
            state.velocities[k] -= masses @ state.velocities[k] / masses.sum()
    return state


def fixed_mask(fixed: ArrayLike | None, n_atoms: int) -> np.ndarray:
    """(n_atoms,) bool of atoms given by indices or as a mask; none for None.

    Raises
    ------
    DynamicsError : neither of the two, indices out of range, or no atom left to move.
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
            f"fixed atoms must be indices below {n_atoms} or a mask of that many bools, got {chosen.tolist()}"
        )
    if mask.all():
        raise DynamicsError(f"at least one atom must be free to move, got all {n_atoms} fixed")
    return mask


def per_replica(name: str, values: ArrayLike, n_replicas: int, unit: str, least: float | None = None) -> np.ndarray:
    """(n_replicas,) float64 of one number or one per replica: positive, or not below `least` where it is given.

    Raises
    ------
    DynamicsError : not numbers, another shape, or out of range.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DynamicsError(f"{name} must be numbers, got {values!r}") from None
    if array.shape not in ((), (n_replicas,)):
        raise DynamicsError(f"{name} must be one number or one per replica ({n_replicas}), got shape {array.shape}")
    allowed = array > 0.0 if least is None else array >= least
    if not (allowed & np.isfinite(array)).all():
        rule = "positive" if least is None else f"at least {least:g}"
        raise DynamicsError(f"{name} must be {rule} and finite, got {array.tolist()} {unit}".rstrip())
    return np.broadcast_to(array, n_replicas).copy()


def _entropy(temperature: float, seed: int) -> list[int]:
    return [seed, int(np.float64(temperature).view(np.uint64))]


def _words(generator: np.random.Generator) -> list[int]:
    """State of a PCG64 as six 64-bit words: state, increment (high and low each), and a half-used 32-bit draw."""
    state = generator.bit_generator.state
    low = (1 << 64) - 1
    numbers = (state["state"]["state"], state["state"]["inc"])
    return [part for n in numbers for part in (n >> 64, n & low)] + [state["has_uint32"], state["uinteger"]]


def _generator(words: np.ndarray) -> np.random.Generator:
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
