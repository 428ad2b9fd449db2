"""Trajectories of LAMMPS and of what MDAnalysis reads, as frames, predictions, choices and runs."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from gmcore.data.reading import Source, count_frames, read_frames
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import DataError
from support.command_line import refused, run
from support.md_runs import MOLECULE, write_weak_model

TYPES = {"1": "H", "2": "N", "3": "Co"}
LETTERS = {1: "1", 7: "2", 27: "3"}


def frames(n: int, periodic: bool) -> list[Atoms]:
    rng, found = np.random.default_rng(4), []
    for _ in range(n):
        atoms = MOLECULE.copy()
        atoms.positions += rng.normal(scale=0.02, size=(5, 3)) + np.array([3.5, 3.5, 4.0])
        if periodic:
            atoms.set_cell([[8.0, 0, 0], [1.5, 7.5, 0], [-0.5, 1.0, 9.0]])
            atoms.pbc = True
        found.append(atoms)
    return found


def dump(path, wanted: list[Atoms], columns: str = "id type x y z", every: int = 10) -> None:
    """A dump as LAMMPS writes it: bounds of a box that may be skewed, atoms in any order."""
    lines = []
    for k, atoms in enumerate(wanted):
        lines += ["ITEM: UNITS", "metal"] if k == 0 else []
        lines += ["ITEM: TIMESTEP", str(every * k), "ITEM: NUMBER OF ATOMS", str(len(atoms))]
        if atoms.pbc.all():
            (a, _, _), (xy, b, _), (xz, yz, c) = atoms.cell.array
            lines += [
                "ITEM: BOX BOUNDS xy xz yz pp pp pp",
                f"{min(0, xy, xz, xy + xz)} {a + max(0, xy, xz, xy + xz)} {xy}",
                f"{min(0, yz)} {b + max(0, yz)} {xz}",
                f"0.0 {c} {yz}",
            ]
        else:
            lines += ["ITEM: BOX BOUNDS ff ff ff", "0.0 9.0", "0.0 9.0", "0.0 9.0"]
        lines.append(f"ITEM: ATOMS {columns}")
        scaled = atoms.cell.scaled_positions(atoms.positions) if atoms.pbc.all() else atoms.positions / 9.0
        for i in np.random.default_rng(k).permutation(len(atoms)):
            x, s = atoms.positions[i], scaled[i]
            values = {"id": i + 1, "type": LETTERS[int(atoms.numbers[i])], "element": atoms.symbols[i], "mass": 1.0}
            values |= dict(zip(("x", "y", "z", "xs", "ys", "zs", "xu", "yu", "zu"), [*x, *s, *x]))
            lines.append(" ".join(str(values[name]) for name in columns.split()))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("columns", "periodic"),
    [
        ("id type x y z", True),
        ("id type mass xs ys zs", True),
        ("id element xu yu zu", False),
        ("type id x y z", False),
    ],
)
def test_dumps_of_lammps(tmp_path, columns, periodic):
    wanted = frames(3, periodic)
    dump(tmp_path / "d.lammpstrj", wanted, columns)
    source = Source(tmp_path / "d.lammpstrj", elements={} if "element" in columns else TYPES)
    found = list(read_frames(source))
    assert count_frames(source) == len(found) == 3
    for k, (frame, atoms) in enumerate(zip(found, wanted)):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-12)
        np.testing.assert_array_equal(frame.pbc, atoms.pbc)
        if periodic:
            np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-12)
        assert frame.fields["step"] == 10 * k and frame.origin == f"frame {k} of d.lammpstrj"
    assert [frame.origin for frame in read_frames(source, start=2)] == ["frame 2 of d.lammpstrj"]


def test_dumps_that_cannot_be_read(tmp_path):
    path = tmp_path / "d.lammpstrj"
    dump(path, frames(2, False))
    text = path.read_text()

    def reason(elements=TYPES) -> str:
        with pytest.raises(DataError) as caught:
            list(read_frames(Source(path, elements=elements)))
        return str(caught.value)

    assert reason({}).startswith("frame 0 of d.lammpstrj has types and no elements: state the element of each type")
    assert reason({"1": "H", "2": "N"}).startswith(
        "the element of type 3 of frame 0 of d.lammpstrj is not known: state"
    )
    assert reason({"1": "Hx"}) == "the element of type '1' must be a symbol such as Co, got 'Hx'"
    path.write_text("\n".join(text.splitlines()[:-1]))
    assert reason() == "frame 1 of d.lammpstrj is not complete: the dump was cut, or is still written"
    path.write_text(text.replace("ITEM: NUMBER OF ATOMS\n5", "ITEM: NUMBER OF ATOMS\n5000000000"))
    assert "frame 0 of d.lammpstrj is not complete" in reason()
    path.write_text("no dump\n")
    assert "is no text dump of LAMMPS" in reason()
    path.write_text(text.replace("id type x y z", "id type a b c"))
    assert "cannot be read as a dump of LAMMPS at frame 0" in reason()


def test_what_mdanalysis_reads(tmp_path):
    MDAnalysis = pytest.importorskip("MDAnalysis", reason="the extra mdanalysis is not installed")
    wanted = frames(3, True)
    universe = MDAnalysis.Universe.empty(5, trajectory=True)
    universe.add_TopologyAttr("elements", list(MOLECULE.symbols))
    universe.add_TopologyAttr("types", ["M", "L", "L", "h", "h"])
    universe.add_TopologyAttr("names", list(MOLECULE.symbols))
    universe.atoms.positions = wanted[0].positions
    universe.dimensions = wanted[0].cell.cellpar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what is written by default
        universe.atoms.write(str(tmp_path / "top.pdb"))
    with MDAnalysis.Writer(str(tmp_path / "t.xtc"), 5) as writer:
        for atoms in wanted:
            universe.atoms.positions = atoms.positions
            universe.dimensions = atoms.cell.cellpar()
            writer.write(universe.atoms)
    source = Source(tmp_path / "t.xtc", topology=tmp_path / "top.pdb")
    found = list(read_frames(source, start=1))
    assert count_frames(source) == 3 and [frame.origin for frame in found] == ["frame 1 of t.xtc", "frame 2 of t.xtc"]
    for frame, atoms in zip(found, wanted[1:]):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=6e-3)  # XTC has 0.01 A
        np.testing.assert_allclose(np.linalg.det(frame.cell), atoms.get_volume(), rtol=1e-3)
        assert frame.pbc.all() and frame.positions.dtype == np.float64
    with pytest.raises(DataError, match=r"t\.xtc does not name its atoms: state a file that does with --topology"):
        list(read_frames(Source(tmp_path / "t.xtc")))


@pytest.mark.slow
def test_predictions_choices_and_runs(tmp_path):
    wanted = frames(60, True)
    dump(tmp_path / "d.lammpstrj", wanted)
    write_weak_model(tmp_path / "d.h5", "d_tensor", 3)
    options = [part for kind, symbol in TYPES.items() for part in ("--element", f"{kind}={symbol}")]
    done = run("predict", tmp_path / "d.h5", tmp_path / "d.lammpstrj", "-o", tmp_path / "p.extxyz", *options)
    assert done.code == 0 and len(read(tmp_path / "p.extxyz", ":")) == 60
    chosen = ["select", tmp_path / "d.lammpstrj", "-o", tmp_path / "s.extxyz", "-n", "3", "--random", *options]
    done = run(*chosen, "--model", tmp_path / "d.h5", "--for", "d_tensor")
    assert done.code == 0 and len(read(tmp_path / "s.extxyz", ":")) == 3, done.err
    convert = ["convert", tmp_path / "d.lammpstrj", "-o", tmp_path / "run", *options]
    assert refused(*convert).startswith("a trajectory of another program needs --time-step")
    more = ["--time-step", "0.5", "--temperature", "50", "--d-tensor", tmp_path / "d.h5", "--metal", "Co"]
    done = run(*convert, *more)
    assert done.code == 0 and done.out == f"written: {tmp_path / 'run' / 'trajectory.h5'} (60 frames)\n", done.err
    trajectory = Trajectory(tmp_path / "run")
    assert trajectory.temperatures.tolist() == [50.0] and trajectory.times("d_tensor")[-1] == 590 * 0.5
    np.testing.assert_allclose(trajectory.values("position", 0), [atoms.positions for atoms in wanted], atol=1e-5)
    done = run("analyze", tmp_path / "run", "--blocks", "4")
    assert done.code == 0 and "50 K: D " in done.out, done.err
    found = json.loads((tmp_path / "run" / "analysis.json").read_text())
    assert found["states"][0]["anisotropy"]["D"]["error"] > 0
    assert refused(*convert, *more) == f"{tmp_path / 'run'} holds a run already: choose another folder"
