"""Conditions that end a run early, checked for every replica.

    numbers that are not finite       every step; on a GPU at the end of every block of steps
    committee deviation of a force    sqrt(sum over xyz of the variance over members or draws) of any atom
    extrapolation                     grade of the structure; above 1 it lies outside the training data
    temperature                       2 E_kin/(n_degrees k_B); fluctuates by T sqrt(2/n_degrees)
    broken bonds                      length divided by length at the start, for the bonds of the starting structure

Conditions are due every `stop.every` steps. A GPU checks them at the end of the block of steps that they are due in.

The whole run ends as soon as one replica leaves the region where the potential is valid. The other replicas could
continue, but that computing time is better spent after the potential has been improved. All recorded samples are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from gmcore.config.dynamics import Stop
from gmcore.dynamics.drivers import Frame
from gmcore.dynamics.state import DynamicsError, State
from gmcore.errors import GMError
from gmcore.molecules.bonds import bonded_pairs


class RunStopped(GMError):
    """A stop condition ended the run.

    Attributes
    ----------
    replicas : indices of the replicas that met the condition.
    has_forces : True if energies and forces were computed at the last positions.
    """

    def __init__(self, reason: str, replicas: Sequence[int], has_forces: bool = True):
        super().__init__(reason)
        self.replicas, self.has_forces = list(replicas), has_forces


class StopConditions:
    """Checks the stop conditions of a run.

    Parameters
    ----------
    stop : the section `stop` of the configuration.
    start : the starting structure, which defines the bonds and their lengths.
    names : names of the replicas, for messages.
    """

    def __init__(self, stop: Stop, start: Atoms, names: Sequence[str]):
        self._stop, self._names, self._numbers = stop, names, start.numbers
        if stop.broken_bonds is not None:
            self._bonds = bonded_pairs(start)
            self._lengths = self._bonds.lengths(start.positions[None], start.cell.array[None])[0]

    def is_due(self, step: int, n_steps: int = 1) -> bool:
        """Return whether a condition, other than finite numbers, is due in the `n_steps` that end with `step`."""
        return step % self._stop.every < n_steps and any(
            getattr(self._stop, name) is not None for name in type(self._stop).model_fields if name != "every"
        )

    def check(self, frame: Frame, n_steps: int = 1) -> None:
        """Check a frame; it is the first after `n_steps` steps.

        Raises
        ------
        RunStopped : a condition is met.
        """
        state, result, stop = frame.state, frame.result, self._stop
        finite = np.isfinite(result.energies) & np.isfinite(result.forces).all(axis=(1, 2))
        if result.stress is not None:
            finite &= np.isfinite(result.stress).all(axis=(1, 2))
        if not finite.all():
            self._end(~finite, "an energy, force or stress is infinite or NaN")
        if not self.is_due(state.step, n_steps):
            return
        if stop.forces_deviation is not None:
            found = result.forces_deviation()
            self._compare(found, stop.forces_deviation, "forces_deviation", "the deviation of the force on {}", "eV/A")
        if stop.extrapolation is not None and result.extrapolation is not None:
            self._check_extrapolation(*result.extrapolation)
        if stop.temperature is not None:
            found = state.temperatures(frame.n_degrees)[:, None]
            self._compare(found, stop.temperature, "temperature", "the temperature", "K")
        if stop.broken_bonds is not None and len(self._lengths):
            found = self._bonds.lengths(state.positions, state.cells) / self._lengths
            self._compare(found, stop.broken_bonds, "broken_bonds", "the length of bond {}", "times its initial length")

    def step_failed(self, state: State, error: GMError) -> RunStopped:
        """Return the exception for a step that failed with `error`, usually because forces cannot be computed."""
        finite = np.isfinite(state.positions).all(axis=(1, 2))
        replicas = np.flatnonzero(~finite) if not finite.all() else np.arange(len(finite))
        reason = str(error) if isinstance(error, DynamicsError) else f"the forces cannot be computed: {error}"
        return RunStopped(reason, replicas.tolist(), has_forces=False)

    def _check_extrapolation(self, grades: np.ndarray, of_atoms: np.ndarray) -> None:
        """End the run if a grade (n_replicas,) is above the limit; the message names the atom that leads."""
        limit = self._stop.extrapolation
        beyond = np.asarray(grades > limit)
        if beyond.any():
            replica = int(np.argmax(grades))
            leading = self._atom(int(np.argmax(of_atoms[replica])))
            reason = (
                f"the extrapolation grade is {grades[replica]:.4g}, above stop.extrapolation = {limit:g}; "
                f"{leading} is farthest from the training data"
            )
            self._end(beyond, reason, first=replica)

    def _compare(self, found: np.ndarray, limit: float, key: str, what: str, unit: str) -> None:
        """End the run if a value of `found` (n_replicas, n) is above the limit; the message names the largest."""
        beyond = np.asarray(found > limit)
        if beyond.any():
            replica, place = (int(index) for index in np.unravel_index(np.argmax(found), found.shape))
            what = what.format(self._bond(place) if key == "broken_bonds" else self._atom(place))
            reason = f"{what} is {found[replica, place]:.4g} {unit}, above stop.{key} = {limit:g}"
            self._end(np.asarray(beyond.any(axis=1)), reason, first=replica)

    def _end(self, beyond: np.ndarray, reason: str, first: int | None = None) -> None:
        """Raise RunStopped for the replicas `beyond` (n_replicas,) bool; the message names the replica `first`."""
        replicas = np.flatnonzero(beyond).tolist()
        first = replicas[0] if first is None else first
        others = f" and {len(replicas) - 1} more" if len(replicas) > 1 else ""
        raise RunStopped(f"replica {self._names[first]}{others}: {reason}", replicas)

    def _atom(self, atom: int) -> str:
        return f"atom {atom} ({chemical_symbols[self._numbers[atom]]})"

    def _bond(self, bond: int) -> str:
        return " - ".join(f"{chemical_symbols[self._numbers[i]]} {i}" for i in self._bonds.pairs[bond])
