"""i-PI from PyPI with a model: units, beads and replicas in one batch, D in its extras, sockets."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.units
import numpy as np
import pytest
from ase.io import read
from typer.testing import CliRunner

from gmcore.commands.app import app
from gmcore.engines import EngineError
from gmcore.engines.ipi import IPIDriver, serve
from gmcore.model import load_model
from support.models import random_model
from support.pages import page
from support.places import ROOT, environment

IPI = Path(sys.executable).with_name("i-pi")
needs_ipi = pytest.mark.skipif(find_spec("ipi") is None, reason="the extra 'engines' is not installed")
STEPS = 20
LOGGED = """from gmcore.engines.ipi import IPIDriver

__DRIVER_NAME__, __DRIVER_CLASS__ = "gmtensor", "Logged"


class Logged(IPIDriver):
    def __call__(self, cell, positions):
        with open("calls.txt", "a") as file:
            file.write(f"{len(cell) if isinstance(cell, list) else 0} ")
        return super().__call__(cell, positions)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder in which the examples run, with models of random weights; their forces are weak."""
    top = tmp_path_factory.mktemp("ipi")
    (top / "examples").symlink_to(ROOT / "examples")
    size = {"species": (1, 6, 7, 8, 16, 27), "hidden": (4,), "n_radial": 1, "r_max": 3.0, "scale": 0.02}
    for job, head in (("co_pdms_d_tensor", "d_tensor"), ("co_pdms_potential", "energy")):
        (top / "runs" / job).mkdir(parents=True)
        random_model(top / "runs" / job / "model.h5", (head,), n_members=2, **size)
    (top / "runs" / "ipi").mkdir()
    (top / "runs" / "ipi" / "logged_pes.py").write_text(LOGGED)
    return top / "runs" / "ipi"


def example(folder: Path, name: str, **changes: str) -> None:
    """Run an example with few steps, and with the driver that counts its calls."""
    text = (ROOT / "examples" / "ipi" / f"{name}.xml").read_text()
    text, n = re.subn(r"<total_steps>\d+", f"<total_steps>{STEPS}", text)
    text, m = re.subn(r"<pes_path>.*?</pes_path>", "<pes_path>logged_pes.py</pes_path>", text)
    assert n == m == 1
    for old, new in changes.items():
        text, n = re.subn(old, new, text, flags=re.S)
        assert n, old
    (folder / f"{name}.xml").write_text(text)
    (folder / "calls.txt").unlink(missing_ok=True)


def run(folder: Path, name: str) -> None:
    command = [sys.executable, IPI, f"{name}.xml"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def beads(folder: Path, prefix: str, bead: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, n_atoms, 3) A and D (n, 3, 3) that i-PI wrote."""
    frames = read(folder / f"{prefix}.positions_{bead}.xyz", ":", format="xyz")
    numbers = [line.split() for line in (folder / f"{prefix}.d_{bead}").read_text().splitlines() if "#" not in line]
    return np.array([frame.positions for frame in frames]), np.array(numbers, float).reshape(-1, 3, 3)


def check_d(folder: Path, positions: np.ndarray, tensors: np.ndarray) -> None:
    """D in the extras is that of the positions beside it, which i-PI writes with six digits."""
    template = read(ROOT / "examples" / "co_pdms" / "potential.extxyz")
    frames = []
    for places in positions:
        frames.append(template.copy())
        frames[-1].positions = places
    expected = load_model(folder.parent / "co_pdms_d_tensor" / "model.h5").predict(frames)["d_tensor"]
    np.testing.assert_allclose(tensors, expected, atol=1e-3 * np.abs(expected).max())


@needs_ipi
@pytest.mark.slow
def test_path_integrals_with_four_beads(folder):
    example(folder, "pimd")
    run(folder, "pimd")
    assert (folder / "calls.txt").read_text().split() == ["4"] * (STEPS + 1)
    for bead in (0, 3):
        positions, tensors = beads(folder, "pimd", bead)
        assert len(tensors) == len(positions) == STEPS // 10 + 1
        check_d(folder, positions, tensors)
    assert np.abs(positions[-1] - beads(folder, "pimd", 1)[0][-1]).max() > 0.01, "the beads are alike"
    conserved = np.loadtxt(folder / "pimd.out")[:, 2]
    assert np.ptp(conserved) < 0.05


@needs_ipi
@pytest.mark.slow
def test_replicas_at_four_temperatures_in_one_batch(folder):
    example(folder, "replicas")
    run(folder, "replicas")
    calls = (folder / "calls.txt").read_text().split()
    assert calls.count("4") >= STEPS - 1, calls
    for name in ("T025", "T300"):
        check_d(folder, *beads(folder, f"{name}_replicas", 0))
    kinetic = [np.loadtxt(folder / f"{name}_replicas.out")[-1, 3] for name in ("T025", "T050", "T100", "T300")]
    assert kinetic == sorted(kinetic)


@needs_ipi
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_sockets_give_what_the_process_itself_gives(kind, folder):
    """unix: four beads in one batch; inet: one bead a message."""
    name = f"gmtensor{os.getpid()}"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    (section,) = re.findall(r"```xml\n(<ffsocket.*?)```", page("engines.md"), flags=re.S)
    if kind == "unix":
        section, address = section.replace("<address>gmtensor<", f"<address>{name}<"), ["--unix", name]
    else:
        section = re.sub(
            r"<address>.*</batch_size>", f"<address>localhost</address><port>{port}</port>", section, flags=re.S
        )
        section, address = section.replace("'unix'", "'inet'"), ["--address", f"localhost:{port}"]
    example(folder, "pimd", **{"<ffdirect.*</ffdirect>": section, "prefix='pimd'": f"prefix='{kind}'"})
    command = [sys.executable, IPI, "pimd.xml"]
    server = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        arguments = ["ipi", "../co_pdms_potential/model.h5", "../../examples/co_pdms/potential.extxyz", *address]
        arguments += ["--d-tensor", "../co_pdms_d_tensor/model.h5", "--metal", "Co"]
        arguments += ["--every", "10"] if kind == "unix" else []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "i-PI has ended" in result.output
        output = server.communicate(timeout=60)[0].decode()
        assert server.returncode == 0, output[-3000:]
    finally:
        server.kill()
    if not (folder / "pimd.out").exists():
        example(folder, "pimd")
        run(folder, "pimd")
    np.testing.assert_allclose(
        np.loadtxt(folder / f"{kind}.out"), np.loadtxt(folder / "pimd.out"), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(beads(folder, kind, 2)[1], beads(folder, "pimd", 2)[1], rtol=1e-5, atol=1e-6)


def test_units_and_batches_of_the_driver(inputs):
    """Constants of ASE; columns of a cell are its vectors; structures of a batch do not see each other."""
    crystal = read(inputs / "crystal.extxyz")
    driver = IPIDriver(inputs / "potential.h5", crystal, inputs / "d.h5", "Co", deviations=True, every=2)
    other = crystal.copy()
    other.rattle(0.05, seed=1)
    other.set_cell(1.02 * other.cell, scale_atoms=True)
    frames = [crystal, other]
    cells, places = [f.cell.array.T / ase.units.Bohr for f in frames], [f.positions / ase.units.Bohr for f in frames]
    found = driver(cells, places)
    ours = load_model(inputs / "potential.h5").predict(frames)
    for k, (energy, forces, virial, extras) in enumerate(found):
        assert energy * ase.units.Ha == pytest.approx(ours["energy"][k], rel=1e-7)
        np.testing.assert_allclose(forces * ase.units.Ha / ase.units.Bohr, ours["forces"][k], rtol=1e-6, atol=1e-9)
        stress = -virial * ase.units.Ha / frames[k].get_volume()
        np.testing.assert_allclose(stress, ours["stress"][k], rtol=1e-6, atol=1e-9)
        assert set(json.loads(extras)) == {"d_tensor", "d_tensor_extrapolation", "forces_deviation", "extrapolation"}
    energy, _, _, extras = driver(cells[1], places[1])
    assert energy == pytest.approx(found[1][0], rel=1e-9)
    assert extras == "", "extras of every second call only"


def test_what_cannot_be_computed_is_refused(inputs):
    crystal = read(inputs / "crystal.extxyz")
    with pytest.raises(EngineError, match="must predict an energy"):
        IPIDriver(inputs / "d.h5", crystal)
    with pytest.raises(EngineError, match="every must be at least 1"):
        IPIDriver(inputs / "potential.h5", crystal, every=0)
    driver = IPIDriver(inputs / "potential.h5", crystal)
    with pytest.raises(EngineError, match="must have the 5 atoms of the template, got 4"):
        driver(np.eye(3), np.zeros((4, 3)))
    with pytest.raises(EngineError, match="either by its address or by the name"):
        serve(driver)
    with pytest.raises(EngineError, match=r"does not answer at /tmp/ipi_nobody: .*start i-PI first"):
        serve(driver, unix="nobody", timeout=0.0)
