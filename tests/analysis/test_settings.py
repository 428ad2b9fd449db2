"""Settings of an analysis: keys and values are checked, atoms that they name must be there."""

from __future__ import annotations

import numpy as np
import pytest

from gmcore.analysis.structure import SelectionError, coordination
from gmcore.config.analysis import Analysis
from gmcore.config.analysis_file import read_settings, with_options
from gmcore.config.loading import ConfigError
from support.synthetic_runs import complex_molecule


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metal": "Fe"}, "must name one atom, but the molecule has 0 of Fe"),
        ({"metal": 9}, "indices of atoms must lie between 0 and 8 in this molecule, got 9"),
        ({"ligands": ["O", 1]}, "names O, but the first shell of the metal has none"),
        ({"ligands": [0, 1]}, "must not name the central atom itself, got 0"),
        ({"bonds": [(0, 12)]}, "indices of atoms must lie between 0 and 8 in this molecule, got 12"),
    ],
)
def test_atoms_that_are_not_there(settings, words):
    atoms = complex_molecule()
    with pytest.raises(SelectionError, match=words):
        coordination(atoms.numbers, atoms.positions, Analysis(**settings))


def test_coordination_of_other_molecules():
    atoms = complex_molecule()
    found = coordination(atoms.numbers, atoms.positions, Analysis(ligands=["N"]))
    assert found.metal == 0 and sorted(found.ligands) == [1, 2, 3, 4] and not found.missing
    organic = coordination(np.array([6, 8, 1]), np.eye(3), Analysis())
    assert (
        organic.metal is None and organic.measures == () and "no single d- or f-block atom" in organic.missing["order"]
    )
    alone = coordination(np.array([27, 1]), np.array([[0.0, 0, 0], [9.0, 0, 0]]), Analysis(bonds=[(0, 1)]))
    assert (
        "The first shell of the metal cannot be found: atom 0 must be bonded" in alone.missing["distance"]
        and len(alone.measures) == 1
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blocs: 3", "unknown key 'blocs' in analysis; did you mean 'blocks'"),
        ("metal: Xx", "must be element symbols or indices, got 'Xx'"),
        ("bonds: [[1, 1]]", r"the atoms of a bond or angle must be different, got \[1, 1\]"),
        ("unit: eV", "unit"),
        ("reference: {source: a, values: [{quantity: DD, value: 1}]}", "unknown quantity 'DD' in analysis.reference"),
        ("reference: {source: a, values: [{quantity: D, value: 1}]}", "value of D must have a unit, got none"),
        ("reference: {source: a, values: [{quantity: order, value: 1, unit: A}]}", "must have no unit, got 'A'"),
        ("reference: {source: a, values: [{quantity: D, value: 1, unit: A}]}", "unknown unit 'A' for d_tensor"),
    ],
)
def test_settings_are_checked(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_settings(tmp_path / "a.yaml")


def test_options_stand_above_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("blocks: 7\nmetal: Co\n")
    settings = with_options(read_settings(tmp_path / "a.yaml"), {"blocks": 9, "ligands": ["N", 3]})
    assert (settings.blocks, settings.metal, settings.ligands) == (9, "Co", ["N", 3])
    assert with_options(settings, {}) is settings
    with pytest.raises(ConfigError, match="the options: blocks"):
        with_options(settings, {"blocks": 1})
    (tmp_path / "md.yaml").write_text(
        "output: o\npotential: p.h5\nstructure: {file: s.xyz}\nreplicas: {temperatures: [5]}\nduration: 1\n"
        "analysis: {blocks: 4}\n"
    )
    assert read_settings(tmp_path / "md.yaml").blocks == 4
