"""Files for MolForge and EasySpin, read back the way that these programs read and use them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gmcore.anisotropy import TensorError, detrace
from gmcore.errors import ExportError
from gmcore.exchange.easyspin import easyspin_frame, write_easyspin
from gmcore.exchange.molforge import write_molforge

MHZ = 29979.2458  # per cm^-1


def read_molforge(path) -> dict[tuple[int, int], np.ndarray]:
    """List-directed reads of Fortran, as in parse_DSIbath."""
    lines = iter(path.read_text().splitlines())
    return {
        tuple(int(word) for word in next(lines).split()): np.array(
            [[float(word) for word in next(lines).split()] for _ in range(3)]
        )
        for _ in range(int(next(lines)))
    }


def erot(alpha, beta, gamma) -> np.ndarray:
    """EasySpin's: passive rotations about z, then the new y, then the new z."""

    def about_z(angle):
        return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(beta), 0, -np.sin(beta)], [0, 1, 0], [np.sin(beta), 0, np.cos(beta)]])
    return about_z(gamma) @ about_y @ about_z(alpha)


def read_easyspin(path) -> dict[str, np.ndarray]:
    code = [line.split("%")[0] for line in path.read_text().splitlines()]
    found = (re.fullmatch(r"Sys\.(\w+) = (.+);\s*", line) for line in code)
    return {m[1]: np.array([eval(word) for word in m[2].strip("[]").split()]) for m in found if m}


def test_molforge_reads_what_was_meant(tmp_path, rng):
    gradient = rng.normal(size=(4, 3, 3, 3))
    write_molforge(tmp_path / "dsi.dat", gradient)
    found = read_molforge(tmp_path / "dsi.dat")
    assert sorted(found) == [(k, 1) for k in range(1, 13)]
    for (index, _), tensor in found.items():
        atom, direction = divmod(index - 1, 3)
        np.testing.assert_allclose(tensor, gradient[atom, direction], rtol=1e-11, atol=1e-11)


def test_molforge_counts_atoms_of_the_crystal(tmp_path, rng):
    gradient = rng.normal(size=(2, 3, 3, 3))
    write_molforge(tmp_path / "dsi.dat", gradient, atoms=[7, 3], cells=[1, 14])
    found = read_molforge(tmp_path / "dsi.dat")
    assert list(found) == [(19, 1), (20, 1), (21, 1), (7, 14), (8, 14), (9, 14)]
    np.testing.assert_allclose(found[8, 14], gradient[1, 1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("gradient", "places", "message"),
    [
        (np.zeros((2, 3, 3)), {}, r"shape \(n_atoms, 3, 3, 3\), got \(2, 3, 3\)"),
        (np.zeros((0, 3, 3, 3)), {}, r"got \(0, 3, 3, 3\)"),
        (np.full((1, 3, 3, 3), np.nan), {}, "must be finite, got 27 values"),
        (np.zeros((2, 3, 3, 3)), {"atoms": [1]}, "must be lists of 2 numbers, got 1 and 2"),
        (np.zeros((2, 3, 3, 3)), {"atoms": [0, 1]}, r"count from 1, got \[0, 1\]"),
        (np.zeros((2, 3, 3, 3)), {"cells": [1.0, 2.0]}, r"cells must be whole numbers"),
        (np.zeros((2, 3, 3, 3)), {"atoms": [4, 4]}, "two atoms have the same one"),
    ],
)
def test_molforge_refusals(tmp_path, gradient, places, message):
    with pytest.raises(ExportError, match=message):
        write_molforge(tmp_path / "dsi.dat", gradient, **places)
    assert not any(tmp_path.iterdir())


def turned(diagonal, rng) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q @ np.diag(diagonal) @ q.T


@pytest.mark.parametrize("diagonal", [(20.0, 40.0, -60.0), (-10.0, -50.0, 60.0), (-60.0, 30.0, 30.0), (0, 50, -50)])
def test_tensor_from_the_angles(diagonal, rng):
    for _ in range(20):
        tensor = turned(diagonal, rng)
        values, angles = easyspin_frame(tensor)
        r = erot(*angles)
        np.testing.assert_allclose(r.T @ np.diag(values) @ r / MHZ, tensor, atol=1e-11)
        assert np.abs(values).argmax() == 2 or np.ptp(np.abs(values)[[np.abs(values).argmax(), 2]]) < 1e-6
        assert values[0] >= values[1] - 1e-6 and 0.0 <= angles[1] <= np.pi


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, np.pi / 2])
@pytest.mark.parametrize("tilt", [0.0, 1e-10, np.pi])
def test_axis_along_z(angle, tilt):
    r = erot(angle, tilt, 0.0)
    tensor = r.T @ np.diag([10.0, 2.0, -12.0]) @ r
    values, angles = easyspin_frame(tensor)
    rebuilt = erot(*angles)
    np.testing.assert_allclose(rebuilt.T @ np.diag(values) @ rebuilt / MHZ, tensor, atol=1e-8)


def test_easyspin_script(tmp_path, rng):
    tensor = turned((20.0, 40.0, -60.0), rng) + 26.5 * np.eye(3)
    write_easyspin(tmp_path / "d.m", tensor, spin=1.5)
    system = read_easyspin(tmp_path / "d.m")
    assert system["S"].tolist() == [1.5] and "Sys.S = 3/2;" in (tmp_path / "d.m").read_text()
    r = erot(*system["DFrame"])
    np.testing.assert_allclose(r.T @ np.diag(system["D"]) @ r / MHZ, detrace(tensor)[0], atol=1e-8)
    assert "D = -90.000000 cm^-1, E = 10.000000 cm^-1" in (tmp_path / "d.m").read_text()
    write_easyspin(tmp_path / "d.m", tensor)
    assert "S" not in read_easyspin(tmp_path / "d.m")
    write_easyspin(tmp_path / "d.m", tensor, spin=2)
    assert read_easyspin(tmp_path / "d.m")["S"].tolist() == [2]


@pytest.mark.parametrize("spin", [0.5, 0.0, -1.0, 1.3, np.nan])
def test_spin_without_splitting(tmp_path, spin):
    with pytest.raises(ExportError, match="must be 1, 3/2, 2"):
        write_easyspin(tmp_path / "d.m", np.diag([1.0, 1.0, -2.0]), spin=spin)


def test_other_tensors_are_refused(tmp_path):
    with pytest.raises(TensorError, match="must be symmetric"):
        write_easyspin(tmp_path / "d.m", np.arange(9.0).reshape(3, 3))
    with pytest.raises(ExportError, match=r"needs one tensor of shape \(3, 3\), got \(2, 3, 3\)"):
        easyspin_frame(np.zeros((2, 3, 3)))
    assert not any(tmp_path.iterdir())
