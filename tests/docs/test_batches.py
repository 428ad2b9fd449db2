"""What docs/data.md promises about structures that are predicted alone and in a batch."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gmcore.model import Model
from support.models import random_parts
from support.pages import page
from support.systems import large_cluster, molecule, triclinic, water_molecule

TEXT = re.sub(r"\s+", " ", page("data.md"))
BOUNDS = re.search(
    r"float32 the forces differ by less than (\S+) of.{,60} energies by less than (\S+) of .{,150} float64 both by "
    r"less than (\S+)\. ",
    TEXT,
)


def frames(rng):
    structures = [make() for make in (water_molecule, molecule, triclinic) for _ in range(8)] + [large_cluster()]
    for atoms in structures:
        atoms.positions += 0.05 * rng.uniform(-1, 1, atoms.positions.shape)
    return structures


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [(12, 10), (128, 128)])
def test_alone_and_in_a_batch(rng, dtype, hidden):
    bounds = [float(number) for number in BOUNDS.groups()]
    of_forces, of_energies = bounds[:2] if dtype == "float32" else 2 * bounds[2:]
    settings, members = random_parts(dtype=dtype, hidden=hidden)
    model, structures = Model(settings, members), frames(rng)
    together, alone = model.predict(structures), [model.predict(atoms) for atoms in structures]
    largest = max(np.abs(result["forces"]).max() for result in alone)
    scale = members[0].scale["energy"].max()
    for k, (atoms, result) in enumerate(zip(structures, alone, strict=True)):
        assert np.abs(together["forces"][k] - result["forces"][0]).max() < of_forces * largest
        assert abs(together["energy"][k] - result["energy"][0]) < of_energies * scale * len(atoms)


def test_one_at_a_time_gives_the_bits_of_each_alone(rng):
    model, structures = Model(*random_parts(dtype="float32")), frames(rng)
    together = model.predict(structures, batch_size=1)
    for k, atoms in enumerate(structures):
        result = model.predict(atoms)
        assert together["energy"][k] == result["energy"][0]
        assert np.array_equal(together["forces"][k], result["forces"][0])
