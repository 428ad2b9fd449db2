"""Files that ASE reads may not claim more than they have: atoms, columns, bytes, elements of arrays."""

from __future__ import annotations

import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.db import connect
from ase.io import read, write

from gmcore.errors import DataError
from gmcore.formats import BoundedFile, check_extxyz, read_structure
from support.places import ROOT, environment

pytestmark = pytest.mark.slow

GIGABYTE = 1 << 30
READ = """
import resource, sys
import gmcore.data.readers.ase_files, ase.io.extxyz, ase.io.trajectory, ase.db.jsondb, ase.db.sqlite
from gmcore.data.reading import read_frames
from gmcore.errors import GMError
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, resource.RLIM_INFINITY))
try:
    print(len(list(read_frames(sys.argv[1]))))
except GMError as error:
    print(error)
"""


def read_within_limits(path: Path) -> str:
    """Read a file with 256 MB and 10 s of processor time, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (30, 30)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
@pytest.mark.parametrize(
    "content, message",
    [
        ("999999999999\n\nH 0 0 0\n", "line 1 promises 999999999999 atoms, 8 bytes follow"),
        ("1\n\nH 0 0 0\n" * 2 + "5000\n\nH 0 0 0\n", "line 7 promises 5000 atoms"),
        ("-1\n\nH 0 0 0\n", "line 1 promises -1 atoms"),
        (
            "1\nProperties=species:S:1:pos:R:9999999999\nH 0 0 0\n",
            "line 2 declares 10000000000 columns, the row below has 4",
        ),
        (
            '1\n""Properties=species:S:1:pos:R:9999999999\nH 0 0 0\n',
            "line 2 declares 10000000000 columns, the row below has 4",
        ),
    ],
)
def test_extended_xyz(tmp_path, content, message):
    path = tmp_path / "a.extxyz"
    path.write_text(content)
    assert message in read_within_limits(path)
    with pytest.raises(DataError, match=message):
        read_structure(path)


def test_sound_extended_xyz(tmp_path):
    path = tmp_path / "a.xyz"
    molecule = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    write(path, [molecule, Atoms(), molecule], format="extxyz")
    check_extxyz(path)
    text = "2\n\nC 0 0 0\nO 0 0 1\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n1\n\nH 0 0 0"
    for ending in ("", "\n", "\n\n"):
        path.write_text(text + ending)
        check_extxyz(path)
        assert read_structure(path, 0).cell.volume == pytest.approx(125.0)
    path.write_text("1\n\nH 0 0 0\nno number\n")
    check_extxyz(path)  # what ASE says is left to ASE


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_trajectory(tmp_path):
    path = tmp_path / "a.traj"
    write(path, Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    content = path.read_bytes()
    assert read_within_limits(path) == "1"
    assert read_structure(path) == read(path)
    at = content.index(b'{"version"') - 8
    path.write_bytes(content[:at] + struct.pack("<q", 2**40) + content[at + 8 :])
    assert read_within_limits(path) == "1"  # nothing follows the text, so it ends where the file does
    claim = re.search(rb'"ndarray": ?\[\[2\]', content)[0]
    path.write_bytes(content.replace(claim, claim.replace(b"2", b"9" * 11)))
    assert "cannot be read as an ASE trajectory" in read_within_limits(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_database(tmp_path):
    path = tmp_path / "a.json"
    with connect(path) as database:
        database.write(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    assert read_within_limits(path) == "1"
    text = path.read_text()
    assert "[[2, 3]," in text
    for shape, claimed in (("[[2, 300000000],", "6e+08"), ("[600000000,", "6e+08")):
        path.write_text(text.replace("[[2, 3],", shape))
        assert f"{path} claims an array of {claimed} numbers" in read_within_limits(path)


def test_a_bounded_file_reads_what_it_has(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    with BoundedFile(path) as file:
        assert file.read(2) == b"ab" and file.read(2**62) == b"c" and file.read() == b"" and file.read(1) == b""
    with BoundedFile(path) as file:
        assert file.read() == b"abc"
