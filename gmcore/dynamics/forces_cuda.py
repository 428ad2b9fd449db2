"""Energies and forces of moving structures without leaving the GPU: what molecular dynamics on the device calls.

    forces = DeviceForces(load_model("model.h5", device="cuda"), atoms, skin=1.0)
    for step in range(n_steps):
        forces.positions += ...          # CuPy, in place
        result = forces()                # arrays of CuPy
        acceleration = result.forces / masses

Per step one number comes to the host: whether an atom has moved so far that the neighbor list must be built again. The
rest replays one CUDA graph (`gmcore.engine.step_cuda`), which outlives most builds of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from gmcore.device.cuda import Array
from gmcore.engine.step_cuda import DeviceStep
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model


class DeviceResult(NamedTuple):
    """Arrays on the device, the mean over the members; the next call may overwrite them.

    energy (n_structures,) eV; forces (n_atoms, 3) eV/A; strain (n_structures, 3, 3) eV: dE/deps, which divided by the
    volume is the stress; energies, forces of every member: (n_members, n_structures), (n_members, n_atoms, 3).
    """

    energy: Array
    forces: Array
    strain: Array
    member_energies: Array
    member_forces: Array


class DeviceForces:
    """Energies, forces and strain derivatives on the device.

    Parameters
    ----------
    model : with an energy, loaded with device="cuda".
    atoms : one structure or several, or a Batch; elements and periodicity are fixed from here on.
    skin : A; the neighbor list is built again when an atom has moved half of it.

    Attributes
    ----------
    positions : device, (n_atoms, 3) float64, A, all structures one after another; move atoms in place.
    n_builds : how often the neighbor list was built.

    Raises
    ------
    GMError : a model on the CPU, or one without an energy.
    """

    def __init__(self, model: Model, atoms: Atoms | Sequence[Atoms] | Batch, skin: float = 1.0):
        self._evaluator = model.evaluator
        if not hasattr(self._evaluator, "device"):
            raise GMError("the model of DeviceForces must be loaded with device='cuda', got one on the CPU")
        if "energy" not in model.units:
            raise GMError(f"the model of DeviceForces must predict an energy, it predicts {', '.join(model.units)}")
        self._column = int(np.flatnonzero(self._evaluator.energy_columns())[0])
        self._pairs = self._evaluator.neighbor_list(skin)
        self._pairs.update(atoms if isinstance(atoms, Batch) else Batch.from_atoms(atoms))
        self._host = self._pairs.batch.host

    @property
    def positions(self) -> Array:
        """(n_atoms, 3) float64, A, on the device."""
        return self._pairs.batch.positions

    @property
    def n_builds(self) -> int:
        """How often the neighbor list was built."""
        return self._pairs.n_builds

    def set_cells(self, cells: np.ndarray) -> None:
        """New cells (n_structures, 3, 3), A, from the host."""
        self._pairs.batch.set_cells(cells)

    def __call__(self) -> DeviceResult:
        """Energies and forces at the present positions."""
        pairs = self._pairs
        serves = True
        if pairs.batch.host is not self._host:  # the cells have changed
            self._host = pairs.batch.host
            serves = pairs.list.prepare(pairs.batch)
        if serves:  # computed with the old list while it is found out whether that was right
            pairs.list.check_movers(pairs.batch)
            step = self._run()
        if not serves or pairs.list.has_moved():
            pairs.list.build(pairs.batch)
            step = self._run()
        with self._evaluator.device.active():
            energies, forces = step.sums[:, :, self._column], -step.g_positions
            return DeviceResult(
                energies.mean(axis=0), forces.mean(axis=0), step.g_strain.mean(axis=0), energies, forces
            )

    def _run(self) -> DeviceStep:
        pairs = self._pairs.pairs()
        step = self._evaluator.step(pairs, forces=True)
        step.run(pairs.geometry, pairs.token)
        return step
