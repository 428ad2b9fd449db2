"""Labels of frames: whole or not at all, none computed twice, refused ones listed, read by a training as they are."""

from __future__ import annotations

import importlib.util
import json
import os

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from gmcore.commands.app import app
from gmcore.config.labeling import LabelConfig
from gmcore.config.loading import ConfigError, parse_config
from gmcore.data.datasets import read_dataset
from gmcore.labeling.store import Store
from support.labels import computed, numbers_of, write_frames
from support.places import ROOT
from support.quantum_chemistry_files import BANNER, orca_geometry, orca_scf

RUNNER = CliRunner()


def label(folder, config: str, *options: str, code: int = 0, frames: str = "frames.extxyz") -> str:
    """Run the command with a configuration given as text; the output is out.extxyz."""
    (folder / "label.yaml").write_text(config)
    arguments = [str(folder / frames), str(folder / "label.yaml"), "-o", str(folder / "out.extxyz"), *options]
    done = RUNNER.invoke(app, ["label", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def python(name: str) -> str:
    return f"method: python\ntime_limit: 60\npython: {{function: 'function.py:{name}'}}\n"


def test_no_frame_is_computed_twice(tmp_path):
    write_frames(tmp_path, 4, temperature=300)
    assert "labeled: 4 of 4 frames (4 now" in label(tmp_path, python("d_tensor"))
    first = (tmp_path / "out.extxyz").read_bytes()
    assert sorted(computed(tmp_path)) == numbers_of(tmp_path / "out.extxyz") == [0, 1, 2, 3]
    frames = ase.io.read(tmp_path / "out.extxyz", index=":")
    assert frames[2].info["source"] == "run 2" and frames[2].info["temperature"] == 300
    # a data set that states its units, and has the names that a training expects
    dataset = read_dataset(tmp_path / "out.extxyz", ["d_tensor"])
    assert [tensor[2, 2] for tensor in dataset.labels["d_tensor"]] == [0, 2, 4, 6]

    assert "(0 now" in label(tmp_path, python("d_tensor"))
    assert (tmp_path / "out.extxyz").read_bytes() == first
    # more frames, some of them twice
    ase.io.write(
        tmp_path / "more.extxyz", [*frames[1:], *ase.io.read(write_frames(tmp_path, 6), index="3:"), frames[1]]
    )
    assert "labeled: 7 of 7 frames (2 now" in label(tmp_path, python("d_tensor"), frames="more.extxyz")
    assert sorted(computed(tmp_path)) == [0, 1, 2, 3, 4, 5]
    assert numbers_of(tmp_path / "out.extxyz") == [1, 2, 3, 3, 4, 5, 1]
    # other charges and other code are other labels
    label(tmp_path, python("d_tensor") + "total_charge: -1\n", frames="more.extxyz")
    assert len(computed(tmp_path)) == 6 + 5
    (tmp_path / "function.py").write_text((tmp_path / "function.py").read_text() + "# changed\n")
    label(tmp_path, python("d_tensor"), frames="more.extxyz")
    assert len(computed(tmp_path)) == 6 + 5 + 5
    assert not list((tmp_path / "out.extxyz.work" / "scratch").iterdir())


def test_refused_frames_are_listed_and_tried_again_on_request(tmp_path):
    write_frames(tmp_path, 7)
    done = label(tmp_path, python("fails"))
    assert "labeled: 2 of 7 frames" in done and numbers_of(tmp_path / "out.extxyz") == [5, 6]
    reasons = [line.split(": ", 1)[1] for line in done.partition("refused: 5 of 7 frames\n")[2].splitlines()[:5]]
    assert reasons[0] == "the first frame is not liked"
    assert reasons[1].startswith("the process that computes ") and reasons[1].endswith(" ended with signal SIGSEGV")
    assert reasons[2] == "d_tensor is missing from the result, which has energy"
    assert reasons[3] == "d_tensor of frame 3 of frames.extxyz must be finite, got nan"
    assert reasons[4] == "d_tensor must be real, got complex numbers"
    # the folders of refused frames stay, and say what happened
    refused = json.loads((tmp_path / "out.extxyz.work" / "refused.json").read_text())
    scratch = tmp_path / "out.extxyz.work" / "scratch"
    assert {entry["scratch"] for entry in refused.values()} == {path.name for path in scratch.iterdir()}
    assert any("not liked" in path.read_text() for path in scratch.glob("*/log.txt"))
    calls = len(computed(tmp_path))
    assert "refused: 5 of 7 frames" in label(tmp_path, python("fails"))
    assert len(computed(tmp_path)) == calls
    assert "refused: 5 of 7 frames" in label(tmp_path, python("fails"), "--retry")
    assert len(list(scratch.iterdir())) == 5
    (tmp_path / "frames.extxyz").write_text("".join((tmp_path / "frames.extxyz").read_text().splitlines(True)[:5]))
    (tmp_path / "out.extxyz").unlink()
    assert "none of the 1 frames was labeled" in label(tmp_path, python("fails"), code=2)
    assert not (tmp_path / "out.extxyz").exists()


def test_the_ligand_field_of_the_example(tmp_path):
    example = ROOT / "examples" / "co_pdms"
    frames = ase.io.read(example / "d_tensor.extxyz", index=":3")
    ase.io.write(tmp_path / "frames.extxyz", frames)
    done = label(tmp_path, f"method: python\npython: {{function: '{example / 'ligand_field.py'}:d_tensor'}}\n")
    assert "labeled: 3 of 3 frames" in done
    for atoms in ase.io.read(tmp_path / "out.extxyz", index=":"):
        np.testing.assert_allclose(atoms.info["d_tensor"], atoms.info["d_tensor_ref"], atol=1e-3)
        assert (atoms.info["total_charge"], atoms.info["multiplicity"]) == (-2, 4)


def test_a_function_of_atoms_with_arguments(tmp_path):
    write_frames(tmp_path, 2, total_charge=3)
    config = "method: python\nquantities: [energy, forces]\npython: {function: 'function.py:energy', arguments: "
    label(tmp_path, config + "{scale: 2.5}}")
    for atoms in ase.io.read(tmp_path / "out.extxyz", index=":"):
        assert atoms.get_potential_energy() == 7.5
        np.testing.assert_array_equal(atoms.get_forces(), atoms.positions)


def test_ase_calculator(tmp_path):
    frames = [molecule(name) for name in ("H2O", "CO", "C2H2")]
    ase.io.write(tmp_path / "frames.extxyz", frames)
    assert "labeled: 3 of 3" in label(tmp_path, "method: ase\nkeep: true\nase: {calculator: ase.calculators.emt.EMT}\n")
    for atoms, labeled in zip(frames, ase.io.read(tmp_path / "out.extxyz", index=":")):
        atoms.calc = EMT()
        assert labeled.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(labeled.get_forces(), atoms.get_forces(), atol=1e-6)
    assert len(list((tmp_path / "out.extxyz.work" / "scratch").iterdir())) == 3


def test_a_charge_that_would_not_reach_the_calculator_is_refused(tmp_path, monkeypatch):
    (tmp_path / "charged.py").write_text(
        "from ase.calculators.emt import EMT\n\n\n"
        "class Charged(EMT):\n    default_parameters = EMT.default_parameters | {'charge': None}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    config = "method: ase\nmultiplicity: 4\nase: {calculator: charged.Charged}\n"
    ase.io.write(tmp_path / "frames.extxyz", molecule("H2O"))
    label(tmp_path, config)
    done = label(tmp_path, config + "total_charge: -2\n", code=2)
    assert (
        "the total_charge -2 of the frame would not reach Charged: set ase.charge to the name of its argument" in done
    )
    label(tmp_path, config.replace("Charged}", "Charged, arguments: {charge: -2}}") + "total_charge: -2\n")
    (tmp_path / "folder").mkdir()
    done = label(tmp_path, config, frames="folder", code=2)
    assert "folder is a folder: choose frames of a run with gmtensor select" in done


@pytest.mark.skipif(importlib.util.find_spec("tblite") is None, reason="needs tblite")
def test_tblite(tmp_path):
    """The shipped forces of the example are those of GFN2-xTB."""
    frames = ase.io.read(ROOT / "examples" / "co_pdms" / "potential.extxyz", index=":1")
    ase.io.write(tmp_path / "frames.extxyz", frames)
    config = (
        "method: ase\ntotal_charge: -2\nmultiplicity: 4\nase:\n  calculator: tblite.ase.TBLite\n  charge: charge\n"
        "  multiplicity: multiplicity\n  arguments: {method: GFN2-xTB, verbosity: 0}\n"
    )
    label(tmp_path, config)
    labeled = ase.io.read(tmp_path / "out.extxyz")
    assert labeled.get_potential_energy() == pytest.approx(frames[0].info["energy_ref"], abs=1e-4)
    np.testing.assert_allclose(labeled.get_forces(), frames[0].arrays["forces_ref"], atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (python("absent"), "function.py has no function 'absent'"),
        (python("d_tensor").replace("function.py", "gone.py"), "gone.py does not exist"),
        (python("d_tensor").replace("function.py", "no_such_package"), "No module named 'no_such_package'"),
        ("method: ase\nase: {calculator: tblight.ase.TBLite}\n", "tblight is not installed: pip install tblight"),
        ("method: orca\norca: {template: gone.inp}\n", "gone.inp cannot be read"),
        ("method: orca\norca: {template: function.py}\n", "must have {coordinates} where each frame has its own"),
    ],
)
def test_what_is_missing_is_said_before_the_first_frame(tmp_path, config, message):
    write_frames(tmp_path, 2)
    done = label(tmp_path, config, code=2)
    assert message in done and len(done.splitlines()) == 1
    assert not computed(tmp_path)


def test_lengths_without_a_unit_are_refused(tmp_path):
    path = write_frames(tmp_path, 2)
    positions = np.array([atoms.positions for atoms in ase.io.read(path, index=":")])
    np.savez(tmp_path / "frames.npz", R=positions, Z=[8, 1, 1])
    assert "must state its unit of length" in label(tmp_path, python("d_tensor"), frames="frames.npz", code=2)
    np.savez(tmp_path / "frames.npz", R=positions / 0.529177210903, Z=[8, 1, 1], units="positions=Bohr")
    label(tmp_path, python("d_tensor"), frames="frames.npz")
    assert numbers_of(tmp_path / "out.extxyz") == pytest.approx([0.0, 1.0])


def test_no_prediction_is_mistaken_for_a_label(tmp_path):
    tensor = np.diag([1.0, 1.0, -2.0])
    predicted = {"d_tensor": tensor, "d_tensor_error": 1.0, "units": "positions=A d_tensor=cm^-1"}
    write_frames(tmp_path, 1, **predicted, total_charge=3)
    label(tmp_path, python("d_tensor"))
    assert "d_tensor_error" not in ase.io.read(tmp_path / "out.extxyz").info
    config = (
        "method: python\nquantities: [energy, forces]\npython: {function: 'function.py:energy', arguments: {scale: 1}}"
    )
    label(tmp_path, config)
    info = ase.io.read(tmp_path / "out.extxyz").info
    assert "d_tensor" not in info and "d_tensor" not in info["units"] and info["source"] == "run 0"
    write_frames(tmp_path, 1, d_tensor=tensor, total_charge=3)  # a label of the file stays
    label(tmp_path, config)
    np.testing.assert_array_equal(ase.io.read(tmp_path / "out.extxyz").info["d_tensor"], tensor)


def test_outputs_are_never_inputs(tmp_path):
    write_frames(tmp_path, 1)
    (tmp_path / "label.yaml").write_text(python("d_tensor"))
    for name in ("frames.extxyz", "label.yaml", "function.py"):
        arguments = [str(tmp_path / "frames.extxyz"), str(tmp_path / "label.yaml"), "-o", str(tmp_path / name)]
        assert RUNNER.invoke(app, ["label", *arguments]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: python", "method python needs a section 'python'"),
        ("method: openmolcas\nase: {calculator: a.B}", "method openmolcas has no use for the section 'ase'"),
        ("method: ase\nase: {calculator: a.B}\nquantities: [d_tensor]", "method ase computes energy, forces"),
        ("method: openmolcas\nquantities: [d_tensr]", "unknown quantity 'd_tensr'; did you mean 'd_tensor'"),
        ("method: python\npython: {function: f.py}", "python.function must be FILE.py:NAME or MODULE:NAME, got 'f.py'"),
        ("method: ase\nase: {calculator: 'a.py:B'}", "ase.calculator must be a dotted name such as tblite.ase.TBLite"),
        ("method: openmolcas\nopenmolcas: {metal: Na}", "openmolcas.metal must be a transition metal from Sc to Zn"),
        ("method: openmolcas\nopenmolcas: {thresholds: [1e-7, 1e-4, 0]}", "openmolcas.thresholds must lie between"),
    ],
)
def test_configurations_that_do_not_fit(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text, kind=LabelConfig)


# --- ORCA: outputs are written from their layout, because no ORCA can be run here

TEMPLATE = "! CASSCF\n%casscf mult {multiplicity} end\n* xyz {charge} {multiplicity}\n{coordinates}\n*\n"
ORCA = "method: orca\ntotal_charge: -2\nmultiplicity: 4\norca: {template: zfs.inp}\n"
END = "\n                             ****ORCA TERMINATED NORMALLY****\n"


def test_orca_elsewhere(tmp_path):
    path = write_frames(tmp_path, 3)
    (tmp_path / "zfs.inp").write_text(TEMPLATE)
    assert "missing: 3 of 3 frames" in label(tmp_path, ORCA, code=3)
    assert not (tmp_path / "out.extxyz").exists()
    inputs = sorted((tmp_path / "out.extxyz.work" / "orca").glob("*/frame.inp"))
    assert len(inputs) == 3

    frames = ase.io.read(path, index=":")
    tensor = np.diag([-10.0, -12.0, 22.0])
    for file in inputs:
        text = file.read_text()
        assert text.startswith("! CASSCF\n%casscf mult 4 end\n* xyz -2 4\nO ")
        x = float(text.splitlines()[3].split()[1])
        if x == 0.0:
            file.with_name("frame.out").write_text(BANNER + orca_geometry(frames[0]) + orca_scf(tensor) + END)
        elif x == 1.0:  # still running
            file.with_name("frame.out").write_text(BANNER + orca_geometry(frames[1]))
            running = file
    (tmp_path / "label.yaml").write_text(ORCA)
    done = label(tmp_path, ORCA, code=3)
    assert "missing: 2 of 3 frames" in done and "frame.out is not finished" in done
    assert "written" in label(tmp_path, ORCA, "--skip-missing")
    (labeled,) = ase.io.read(tmp_path / "out.extxyz", index=":")
    np.testing.assert_allclose(labeled.info["d_tensor"], tensor, atol=1e-5)

    # another molecule, and a failure, are refused until they are repaired
    other = frames[1].copy()
    other.rattle(0.1)
    running.with_name("frame.out").write_text(BANNER + orca_geometry(other) + orca_scf(tensor) + END)
    assert "the geometry must be that of" in label(tmp_path, ORCA, "--skip-missing")
    running.with_name("frame.out").write_text(BANNER + "ORCA finished by error termination in SCF\n")
    assert "ORCA failed: see the end of" in label(tmp_path, ORCA, "--skip-missing")
    running.with_name("frame.out").write_text(BANNER + orca_geometry(frames[1]) + orca_scf(tensor) + END)
    done = label(tmp_path, ORCA, "--skip-missing")
    assert "labeled: 2 of 3 frames (1 now" in done and "refused" not in done


def test_orca_needs_charge_and_multiplicity(tmp_path):
    write_frames(tmp_path, 1)
    (tmp_path / "zfs.inp").write_text(TEMPLATE)
    done = label(tmp_path, ORCA.replace("total_charge: -2\n", ""), code=2)
    assert "method orca needs the total_charge of every frame, and frame 0 of frames.extxyz does not state it" in done


def test_nearest_labeled_frame(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "orbitals").write_text("of 0.3")
    geometry = {"numbers": [8, 1], "multiplicity": 4, "positions": [[0, 0, 0], [0, 0, 1.3]]}
    assert store.nearest("h5", geometry) is None
    store.add("a", {}, {}, {"h5": tmp_path / "orbitals"}, geometry, 1.0, None)
    far = geometry | {"positions": [[0, 0, 0], [0, 0, 2.3]]}
    store.add("b", {}, {}, {"h5": tmp_path / "orbitals"}, far, 1.0, None)
    shifted = geometry | {"positions": [[5, 5, 5], [5, 5, 6.2]]}
    for known in (store, Store(tmp_path)):  # also when it is read again
        assert known.nearest("h5", shifted).name == "a.h5"
        assert known.nearest("h5", far).read_text() == "of 0.3"
        assert known.nearest("h5", far | {"multiplicity": 2}) is None
        assert known.nearest("other", far) is None
