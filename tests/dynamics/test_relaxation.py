"""Relaxation of molecules and crystals, and what cannot be relaxed."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from gmcore.dynamics.relaxation import RelaxationError, relax
from gmcore.model import Model
from support.models import random_parts
from support.systems import water_molecule

MINIMUM_SEED = 29  # a random potential whose crystal does not collapse


def potential(**options) -> Model:
    return Model(*random_parts(["energy"], **options))


def test_relaxation_of_a_crystal_and_its_cell():
    model, atoms = potential(seed=MINIMUM_SEED), Atoms("HC", [[0, 0, 0], [1.5, 1.6, 1.4]], cell=[3.1, 3, 3], pbc=True)
    relaxed = relax(atoms, model, fmax=0.02, cell=True)
    assert relaxed.calc is None and not np.allclose(relaxed.cell, atoms.cell)
    stress = model.predict(relaxed)["stress"][0]
    assert np.abs(stress * relaxed.get_volume()).max() < 0.02


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (Atoms(), {}, "at least one atom, got none"),
        (Atoms("H", constraint=FixAtoms([0])), {}, "cannot use constraints, got 1"),
        (water_molecule(), {"fmax": 0.0}, "must be positive, got 0.0 eV/A"),
        (water_molecule(), {"cell": True}, "periodic in all three directions"),
        (water_molecule(), {"max_steps": 1}, "below 0.0001 eV/A, got .* after 1 steps"),
    ],
)
def test_what_cannot_be_relaxed(atoms, options, message):
    with pytest.raises(RelaxationError, match=message):
        relax(atoms, potential(), **options)
