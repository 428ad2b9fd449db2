"""`gmtensor modes` and `gmtensor export`: files, table, and one sentence for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from gmcore.analysis.mode_files import load_expansion
from gmcore.analysis.modes import Modes
from gmcore.errors import GMError
from gmcore.model import load_model
from gmcore.tensor_gradients import d_tensor_gradient, without_core
from support.command_line import refused, run
from support.models import random_model
from support.systems import water_molecule

MINIMUM_SEED = 29  # a random potential with a bent minimum of water


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("modes")
    random_model(path / "potential.h5", ["energy"], seed=MINIMUM_SEED)
    random_model(path / "d.h5", ["d_tensor"], n_members=2)
    write(path / "water.extxyz", [water_molecule(), water_molecule()])
    return path


@pytest.fixture(scope="module")
def found(folder):
    return run(
        "modes", folder / "water.extxyz", "--potential", folder / "potential.h5", "--d-tensor", folder / "d.h5",
        "-o", folder / "out", "--xyz", "--temperature", 100, "--temperature", 0, "--tensor-unit", "MHz",
    )  # fmt: skip


def test_files_agree_with_each_other(folder, found):
    assert found.code == 0, found.err
    modes = Modes.load(folder / "out" / "modes.h5")
    expansion = load_expansion(folder / "out" / "modes.h5")
    record = json.loads((folder / "out" / "modes.json").read_text())
    assert modes.n_imaginary == 0 and len(modes) == 3
    assert record["summary"] == modes.summary() and modes.summary() in found.out
    np.testing.assert_allclose(record["frequencies"]["value"], modes.frequencies)
    magnetic = record["d_tensor"]
    assert magnetic["first"]["unit"] == "MHz"
    np.testing.assert_allclose(magnetic["first"]["value"], 29979.2458 * expansion.first, rtol=1e-9)
    np.testing.assert_allclose(magnetic["first"]["committee"], 29979.2458 * expansion.first_std, rtol=1e-9)
    cold = magnetic["harmonic"][1]
    assert cold["temperature"]["value"] == 0.0
    expected = expansion.value + 0.25 * expansion.second.sum(axis=0)
    np.testing.assert_allclose(cold["quantum"]["mean"]["value"], 29979.2458 * expected, rtol=1e-9)
    np.testing.assert_allclose(cold["classical"]["width"]["value"], 0.0, atol=1e-9)
    relaxed = read(folder / "out" / "relaxed.extxyz")
    np.testing.assert_allclose(relaxed.positions, modes.atoms.positions, atol=1e-7)
    gradient = d_tensor_gradient(load_model(folder / "d.h5", "float64"), modes.atoms)
    np.testing.assert_allclose(expansion.gradient, gradient, rtol=1e-9, atol=1e-9)


def test_vectors_for_viewers(folder, found):
    modes = Modes.load(folder / "out" / "modes.h5")
    lines = (folder / "out" / "modes.xyz").read_text().splitlines()
    assert len(lines) == 3 * 5 and lines[5:7] == ["3", f"mode 2, {modes.frequencies[1]:.2f} cm^-1"]
    numbers = np.array([line.split()[1:] for line in lines[7:10]], float)
    np.testing.assert_allclose(numbers[:, :3], modes.atoms.positions, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 3:], modes.displacements[1], atol=1e-6)


def test_table_has_the_strongest_coupling_first(folder, found):
    expansion = load_expansion(folder / "out" / "modes.h5")
    rows = [line.split() for line in found.out.splitlines() if line.startswith(" ") and "%" in line]
    assert [int(words[0]) for words in rows] == (np.argsort(-expansion.strength) + 1).tolist()
    assert "MHz" in found.out


def test_modes_without_d(folder, tmp_path):
    result = run(
        "modes", folder / "water.extxyz", "--potential", folder / "potential.h5", "-o", tmp_path, "--no-relax",
        "--rows", 1,
    )  # fmt: skip
    assert result.code == 0 and "not relaxed (largest force" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["modes.h5", "modes.json", "relaxed.extxyz"]
    assert "d_tensor" not in json.loads((tmp_path / "modes.json").read_text())
    with pytest.raises(GMError, match="modes without D"):
        load_expansion(tmp_path / "modes.h5")


def test_export(folder, tmp_path):
    result = run(
        "export", folder / "water.extxyz", "--d-tensor", folder / "d.h5", "--molforge", tmp_path / "dsi.dat",
        "--easyspin", tmp_path / "d.m", "--spin", 1.5, "--places", "7,2-3", "--frame", 1,
    )  # fmt: skip
    assert result.code == 0, result.err
    lines = (tmp_path / "dsi.dat").read_text().splitlines()
    assert lines[0] == "9" and lines[1::4] == [f"{k} 1" for k in (19, 20, 21, 4, 5, 6, 7, 8, 9)]
    expected = d_tensor_gradient(load_model(folder / "d.h5", "float64"), water_molecule())
    assert np.array(lines[2].split(), float) == pytest.approx(expected[0, 0, 0], rel=1e-9, abs=1e-9)
    assert "Sys.S = 3/2;" in (tmp_path / "d.m").read_text()


def test_atom_on_the_mean_position(folder, tmp_path):
    atoms = read(folder / "water.extxyz")
    atoms.positions[0] = 0.5 * (atoms.positions[1] + atoms.positions[2]) + [0.0, 0.0, 0.01]
    write(tmp_path / "flat.extxyz", atoms)
    export = ("export", tmp_path / "flat.extxyz", "--d-tensor", folder / "d.h5", "--molforge", tmp_path / "dsi.dat")
    message = refused(*export)
    assert "got O1: exclude them with --core 0.05" in message and not (tmp_path / "dsi.dat").exists()
    result = run(*export, "--core", 0.05)
    assert result.code == 0 and "excluded from D: O1" in result.out
    numbers = np.array([line.split() for line in (tmp_path / "dsi.dat").read_text().splitlines() if "e" in line], float)
    model = without_core(load_model(folder / "d.h5", "float64"), 0.05)
    expected = d_tensor_gradient(model, read(tmp_path / "flat.extxyz"))
    np.testing.assert_allclose(numbers.reshape(3, 3, 3, 3), expected, rtol=1e-9, atol=1e-9)


def test_molecule_of_a_crystal(folder, tmp_path):
    """A metal is a metal by name only: here it is the oxygen of water."""
    crystal = water_molecule() + water_molecule()
    crystal.positions[3:] += 2.6
    crystal.set_cell([5.2, 5.2, 5.2])
    crystal.pbc = True
    write(tmp_path / "crystal.extxyz", crystal)
    d, arguments = folder / "d.h5", ("--metal", "O", "--molecule", 1)
    result = run(
        "modes", tmp_path / "crystal.extxyz", "--potential", folder / "potential.h5", "--d-tensor", d, *arguments,
        "--no-relax", "-o", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0, result.err
    gradient = load_expansion(tmp_path / "out" / "modes.h5").gradient
    alone = d_tensor_gradient(load_model(d, "float64"), water_molecule())
    np.testing.assert_allclose(gradient, np.concatenate([0.0 * alone, alone]), atol=1e-8)
    export = ("export", tmp_path / "crystal.extxyz", "--d-tensor", d, *arguments, "--molforge", tmp_path / "dsi.dat")
    assert run(*export).code == 0
    assert (tmp_path / "dsi.dat").read_text().splitlines()[1::4] == [f"{k} 1" for k in range(10, 19)]
    crystal.positions[4] += crystal.cell[0]
    write(tmp_path / "crystal.extxyz", crystal)
    assert "must not cross a cell boundary" in refused(*export)
    export = ("export", tmp_path / "crystal.extxyz", "--d-tensor", d, "--metal", "O", "--easyspin", tmp_path / "d.m")
    assert "has 2 molecules with O, numbered from 0, got --molecule 2" in refused(*export, "--molecule", 2)


def test_one_sentence_for_everything_wrong(folder, tmp_path):
    water, potential, d = (folder / name for name in ("water.extxyz", "potential.h5", "d.h5"))
    out, script = tmp_path / "out", tmp_path / "out.m"
    modes, export = ("modes", water, "-o", out, "--potential"), ("export", water, "--d-tensor")
    assert "a relaxation needs a model with forces" in refused(*modes, d)
    assert "modes need a model with forces" in refused(*modes, d, "--no-relax")
    assert "--d-tensor needs a model with one D tensor, got a model of energy" in refused(
        *modes, potential, "--d-tensor", potential
    )
    assert "--temperature needs --d-tensor" in refused(*modes, potential, "--temperature", 10)
    assert "--metal needs --d-tensor" in refused(*modes, potential, "--metal", "Co")
    assert "unknown unit 'parsec'" in refused(*modes, potential, "--tensor-unit", "parsec")
    assert "has 2 structures, numbered from 0, got --frame 2" in refused(*modes, potential, "--frame", 2)
    assert "nothing to export" in refused(*export, d)
    assert "needs --molforge" in refused(*export, d, "--easyspin", script, "--places", "1")
    assert "--places must be numbers and ranges" in refused(
        *export, d, "--molforge", out.with_suffix(".dat"), "--places", "1,x"
    )
    assert "atoms and cells must be lists of 3 numbers" in refused(
        *export, d, "--molforge", out.with_suffix(".dat"), "--places", "1-2"
    )
    assert "the spin must be 1, 3/2, 2" in refused(*export, d, "--easyspin", script, "--spin", 0.5)
    assert not out.exists() and not script.exists()
