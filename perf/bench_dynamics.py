"""Molecular dynamics of 8 replicas of a molecule of 53 atoms: the driver over the force call, and against ASE.

A run of 20 steps from the same start is timed, forgetting of the neighbor list and forces at the start included. The
random model gets weak forces, so that the molecule, which it does not hold together, goes nowhere within a run. The
force call is timed at the positions that the driver passes through. The trajectories of ASE are eight, one after the
other, with `GMCalculator` and ASE's own Langevin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin as AseLangevin

from gmcore.calculator import GMCalculator
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.integrators import Integrator, make_integrator
from gmcore.dynamics.state import State, initial_state
from gmcore.model import Model
from perf.harness import Timing, compare
from perf.report import Row
from perf.systems import model_parts, molecules

N_REPLICAS, N_ATOMS, N_STEPS = 8, 53, 20
TIME_STEP, FRICTION = 0.5, 0.01  # fs, 1/fs
TEMPERATURES = np.repeat([25.0, 50.0, 75.0, 100.0], 2)
CUTOFF, N_NEIGHBORS, WEAKNESS = 6.5, 30.0, 1e-3
KINDS = ("nve", "langevin", "nose_hoover")


def run() -> list[Row]:
    settings, member = model_parts(r_max=CUTOFF)
    weak = {head: WEAKNESS * scale for head, scale in member.scale.items()}
    model = Model(settings, [replace(member, scale=weak)], "float32")
    atoms = molecules(1, N_ATOMS, N_NEIGHBORS, CUTOFF)[0]
    start = initial_state(atoms, TEMPERATURES, range(N_REPLICAS)).arrays()
    functions = {"force call": _force_calls(model, start)}
    functions |= {kind: _Run(model, start, kind) for kind in KINDS}
    timed = compare(functions | {"ASE Langevin": _AseRun(model, start)}, sample_s=0.05, budget_s=40.0)

    system = f"{N_REPLICAS} x {N_ATOMS} atoms, {N_NEIGHBORS:.0f} neighbors, {CUTOFF} A"
    rows = [Row.timed(timed, "force call", system, "ms/step", N_STEPS)]
    for kind in KINDS:
        rows.append(Row.timed(timed, kind, system, "ms/step", N_STEPS, to="force call", target="<= 1.05"))
    rows.append(Row.timed(timed, "ASE Langevin", system, "ms/step", N_STEPS, to="langevin"))
    for name in ("langevin", "ASE Langevin"):
        speed = Timing.of(N_REPLICAS * N_STEPS * TIME_STEP * 1e-6 * 86400.0 / timed.seconds[name])
        row = Row.timed(timed, name, f"{N_REPLICAS} replicas together", "s")
        rows.append(
            replace(row, unit="ns/day", value=speed.median, lower=speed.lower, upper=speed.upper, first_call_s=None)
        )
    return rows


class _Run:
    """Steps of the batch from the same start."""

    def __init__(self, model: Model, start: dict[str, np.ndarray], kind: str):
        self._start, state = start, State.from_arrays(start)
        forces = BatchForces(model, state.numbers, state.pbc, N_REPLICAS)
        options = {"friction": FRICTION} if kind == "langevin" else {}
        self._dynamics: Integrator = make_integrator(kind, forces, state, TIME_STEP, TEMPERATURES, **options)

    def __call__(self) -> None:
        for _ in self.steps():
            pass

    def steps(self):
        """The positions at the start and after every step."""
        state = self._dynamics.state
        state.positions[:], state.velocities[:] = self._start["positions"], self._start["velocities"]
        self._dynamics.restart()
        yield state.positions
        for _ in range(N_STEPS):
            self._dynamics.step()
            yield state.positions


def _force_calls(model: Model, start: dict[str, np.ndarray]) -> Callable[[], None]:
    """The force calls of such a run alone."""
    path = [positions.copy() for positions in _Run(model, start, "langevin").steps()]
    forces = BatchForces(model, start["numbers"], start["pbc"], N_REPLICAS)

    def calls() -> None:
        forces.forget()
        for positions in path:
            forces(positions, start["cells"])

    return calls


class _AseRun:
    """The same trajectories by ASE, one after the other."""

    def __init__(self, model: Model, start: dict[str, np.ndarray]):
        self._start, self._runs = start, []
        for k in range(N_REPLICAS):
            atoms = Atoms(start["numbers"], start["positions"][k])
            atoms.calc = GMCalculator(model)
            options = {"friction": FRICTION / units.fs, "fixcm": False, "rng": np.random.RandomState(k)}
            self._runs.append(AseLangevin(atoms, TIME_STEP * units.fs, temperature_K=TEMPERATURES[k], **options))

    def __call__(self) -> None:
        for k, run in enumerate(self._runs):
            run.atoms.positions = self._start["positions"][k]
            run.atoms.set_velocities(self._start["velocities"][k] / units.fs)
            run.run(N_STEPS)
