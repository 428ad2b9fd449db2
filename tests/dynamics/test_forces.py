"""Forces of all replicas at once are those of the model on each; what a committee adds; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gmcore.dynamics.forces import BatchForces, ForceResult
from gmcore.dynamics.state import DynamicsError
from gmcore.engine.neighbors import NeighborError
from gmcore.engine.structures import StructureError, UnknownElementError
from gmcore.errors import GMError
from gmcore.model import Model
from support.models import make_head, random_parts
from support.systems import molecule, triclinic, water_molecule
from support.tolerances import relative_error


def displaced(atoms, n_replicas: int):
    """Copies with the atoms elsewhere and each in a cell of its own, and their arrays."""
    rng = np.random.default_rng(1)
    frames = []
    for k in range(n_replicas):
        frame = atoms.copy()
        frame.set_cell(atoms.cell.array * (1.0 + 0.01 * k), scale_atoms=True)
        frame.positions += 0.05 * rng.normal(size=frame.positions.shape)
        frames.append(frame)
    return frames, np.array([f.positions for f in frames]), np.array([f.cell.array for f in frames])


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("system", [triclinic, molecule])
def test_forces_are_those_of_the_model(system, n_members):
    model = Model(*random_parts(("energy", make_head("charges", 3, conserve=True)), n_members=n_members))
    frames, positions, cells = displaced(system(), 3)
    expected = model.predict(frames, ("energy", "forces", "stress"))
    forces = BatchForces(model, system().numbers, system().pbc, 3)
    result = forces(positions, cells, want_stress=True)
    assert relative_error(result.energies, expected["energy"]) < 1e-12
    assert relative_error(result.forces, expected["forces"]) < 1e-11
    assert forces(positions, cells).stress is None
    if system().pbc.all():
        assert relative_error(result.stress, expected["stress"]) < 1e-11
    else:
        assert np.isnan(result.stress).all()
    if n_members == 1:
        assert result.energy_deviation().shape == (3,) and np.isnan(result.energy_deviation()).all()
        assert result.forces_deviation().shape == (3, len(system())) and np.isnan(result.forces_deviation()).all()
    else:
        assert relative_error(result.energy_deviation(), expected["energy_std"]) < 1e-10
        deviation = np.sqrt((expected["forces_std"] ** 2).sum(axis=2))
        assert relative_error(result.forces_deviation(), deviation) < 1e-10


def test_deviation_of_a_known_committee():
    """Two members whose forces differ by (0, 6, 8): each is (0, 3, 4) from the mean, 5 in length."""
    members = np.zeros((2, 1, 1, 3))
    members[1, 0, 0] = 0.0, 6.0, 8.0
    result = ForceResult(np.ones(1), members.mean(0), None, np.array([[0.0], [2.0]]), members)
    assert result.forces_deviation() == pytest.approx(np.array([[5.0]]))
    assert result.energy_deviation() == pytest.approx([1.0])


def test_the_list_is_kept_until_it_is_forgotten():
    atoms = triclinic()
    forces = BatchForces(Model(*random_parts()), atoms.numbers, atoms.pbc, 2)
    _, positions, cells = displaced(atoms, 2)
    first = forces(positions, cells)
    positions += 0.01  # in place, as integrators do: the last batch must not follow
    cells *= 1.0001
    forces(positions, cells)
    assert forces.neighbors.n_builds == 1
    forces.forget()
    assert forces.neighbors.n_builds == 0
    again = forces(positions - 0.01, cells / 1.0001)
    assert relative_error(again.forces, first.forces) < 1e-11


def test_refused():
    energy, tensor = Model(*random_parts()), Model(*random_parts([make_head("d_tensor", 3)]))
    with pytest.raises(DynamicsError, match="must predict an energy, got a model of d_tensor"):
        BatchForces(tensor, [1], [False] * 3, 1)
    with pytest.raises(DynamicsError, match="at least one replica, got 0"):
        BatchForces(energy, [1], [False] * 3, 0)
    with pytest.raises(UnknownElementError, match="element U"):
        BatchForces(energy, [1, 92], [False] * 3, 1)
    with pytest.raises(NeighborError, match="skin must be finite and not negative, got -1"):
        BatchForces(energy, [1], [False] * 3, 1, skin=-1)
    forces = BatchForces(energy, water_molecule().numbers, [False] * 3, 2)
    with pytest.raises(DynamicsError, match=r"positions must have shape \(2, 3, 3\), got \(3, 3\)"):
        forces(water_molecule().positions, np.zeros((2, 3, 3)))
    positions = np.repeat(water_molecule().positions[None], 2, axis=0)
    forces(positions, np.zeros((2, 3, 3)))
    with pytest.raises(StructureError, match=r"positions must be finite .* for atom 1 of structure 1"):
        positions[1, 1] = np.nan
        forces(positions, np.zeros((2, 3, 3)))
    assert issubclass(DynamicsError, GMError)
