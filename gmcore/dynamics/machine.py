"""Where the arrays of a run are, and who moves them: the CPU, or a GPU (`gmcore.dynamics.forces_cuda`).

Integrators name the loops of `gmcore.kernels.motion_cpu`; the machine runs them, or their twins, on arrays of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gmcore.dynamics.state import State
from gmcore.kernels import motion_cpu

Array = Any
"""An array of the machine."""


class Machine(Protocol):
    """What integrators need of a machine.

    Attributes
    ----------
    on_host : whether its arrays are those of the state.
    may_wait : whether numbers may be looked at in the middle of a step; not while a GPU is given a block of steps.
    force_factor : the force is this number times the sum of the terms that `Forces.terms` gives.
    """

    on_host: bool
    may_wait: bool
    force_factor: float

    def share(self, name: str, values: np.ndarray) -> Array:
        """Return an array of the machine that is moved in place of a variable of the state."""

    def constant(self, values: np.ndarray) -> Array:
        """Return an array of the machine with these values."""

    def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
        """Run a kernel of `motion_cpu` or its twin; a GPU needs the number of atoms or replicas."""

    def sum_atoms(self, values: Array, out: Array) -> None:
        """Sum values (n_replicas, n_atoms) over the atoms into out (n_replicas,)."""

    def set_counter(self, counter: Array, step: int) -> None:
        """Write the number of the step into counter (1,)."""

    def download(self, array: Array) -> np.ndarray:
        """Return an array on the host, after all work on it is done."""

    def fetch(self, state: State) -> None:
        """Bring positions, velocities and variables of the thermostat into the state."""


class Host:
    """The CPU: arrays of the state are moved where they are."""

    on_host = may_wait = True
    force_factor = 1.0

    def share(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return values

    def constant(self, values: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return values

    def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
        """Run a loop of `motion_cpu`."""
        getattr(motion_cpu, kernel)(*arguments)

    def sum_atoms(self, values: np.ndarray, out: np.ndarray) -> None:
        """Sum values (n_replicas, n_atoms) over the atoms into out (n_replicas,)."""
        np.sum(values, axis=1, out=out)

    def set_counter(self, counter: np.ndarray, step: int) -> None:
        """Write the number of the step into counter (1,)."""
        counter[0] = step

    def download(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def fetch(self, state: State) -> None:
        """Do nothing: the state is here."""


HOST = Host()
