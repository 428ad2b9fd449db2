"""HDF5 files are checked before libhdf5 parses them: damage, links and absurd sizes are one sentence, quickly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from gmcore.errors import DamagedFileError
from gmcore.files import atomic_hdf5
from gmcore.inputs import hdf5
from gmcore.inputs.hdf5 import open_hdf5, read_array
from gmcore.inputs.seal import LENGTH, MARK, is_sealed, seal_file
from support.places import environment


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "own.h5"
    with atomic_hdf5(path) as file:
        file["x"], file["group/y"] = np.arange(500.0), np.arange(3)
    return path


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["group/y"] = np.arange(500.0), np.arange(3)
    return path


def no_child(*args, **options):
    raise AssertionError("a child process was started")


def test_a_sealed_file_is_plain_hdf5_and_needs_no_child(sealed, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_child)
    assert sealed.read_bytes()[-LENGTH:].startswith(MARK) and is_sealed(sealed)
    with h5py.File(sealed, "r") as plain, open_hdf5(sealed) as file:
        assert np.array_equal(plain["x"][()], file["x"][()])


def test_any_changed_inserted_or_lost_byte_is_found_before_hdf5_sees_it(sealed, rng, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_child)
    monkeypatch.setattr(h5py, "File", no_child)
    whole = sealed.read_bytes()
    damages = [whole[:3000] + bytes(8) + whole[3000:], whole[:3000] + whole[3001:], whole[:-5]]
    for place in rng.integers(8, len(whole) - LENGTH, 20):
        damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for damaged in damages:
        sealed.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"own\.h5 is truncated or damaged: .* use another copy of it"):
            with open_hdf5(sealed):
                pass


def test_a_program_that_changes_a_file_cuts_the_seal_off(sealed):
    with h5py.File(sealed, "r+") as file:
        file["x"][0] = 7.0
    assert not is_sealed(sealed)
    with open_hdf5(sealed) as file:
        assert file["x"][0] == 7.0
    seal_file(sealed)
    assert is_sealed(sealed)


def test_a_foreign_file_is_tried_once_in_a_child(foreign, monkeypatch):
    calls, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: calls.append(args) or run(*args, **options))
    for _ in range(2):
        with open_hdf5(foreign) as file:
            assert file["x"][3] == 3.0
    assert len(calls) == 1
    with h5py.File(foreign, "r+") as file:
        file["z"] = np.zeros(3)
    with open_hdf5(foreign):
        assert len(calls) == 2


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "HDF5 crashes on it"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "HDF5 does not come to an end with it"),
        ("import time; time.sleep(600)", "HDF5 does not come to an end with it"),
        ("raise SystemExit('no h5py here')", r"the check of HDF5 files failed \(no h5py here\)"),
    ],
)
def test_a_child_that_crashes_or_hangs_is_one_sentence(foreign, tmp_path, monkeypatch, code, reason):
    """The child is replaced by one that does what libhdf5 does on some damaged files."""
    (tmp_path / "walk.py").write_text(code)
    monkeypatch.setattr(hdf5.hdf5_walk, "__file__", str(tmp_path / "walk.py"))
    monkeypatch.setattr(hdf5, "WALL_SECONDS", 1 if "sleep" in code else 60)
    with pytest.raises(DamagedFileError, match=rf"foreign\.h5 is truncated or damaged: {reason}; use another copy"):
        with open_hdf5(foreign):
            pass


def test_the_time_of_the_child_is_limited_by_the_system(foreign, tmp_path, monkeypatch):
    pytest.importorskip("resource", reason="limits of processes are a matter of POSIX")
    source = Path(hdf5.hdf5_walk.__file__).read_text(encoding="utf-8")
    (tmp_path / "walk.py").write_text(source.replace('    reason = ""\n', '    reason = ""\n    while True: pass\n'))
    monkeypatch.setattr(hdf5.hdf5_walk, "__file__", str(tmp_path / "walk.py"))
    monkeypatch.setattr(hdf5, "CPU_SECONDS", 1)
    monkeypatch.setattr(hdf5, "WALL_SECONDS", 300)
    with pytest.raises(DamagedFileError, match="HDF5 does not come to an end with it"), open_hdf5(foreign):
        pass


LINKS = {
    "another file": (
        lambda file: file.__setitem__("outside", h5py.ExternalLink("secret.h5", "/x")),
        "/outside is a link to another file, secret.h5, which is not read",
    ),
    "deep": (
        lambda file: file["group"].__setitem__("outside", h5py.ExternalLink("secret.h5", "/x")),
        "/group/outside is a link to another file",
    ),
    "circle": (
        lambda file: (file.__setitem__("a", h5py.SoftLink("/b")), file.__setitem__("b", h5py.SoftLink("/a"))),
        "/[ab] is a link that leads nowhere, or in a circle",
    ),
    "nowhere": (lambda file: file.__setitem__("a", h5py.SoftLink("/none")), "/a is a link that leads nowhere"),
    "external data": (
        lambda file: file.create_dataset("raw", (4,), "u1", external=[("/etc/hostname", 0, 4)]),
        "/raw has its data in other files",
    ),
    "virtual data": (
        lambda file: file.create_virtual_dataset("sum", virtual_layout()),
        "/sum has its data in other files",
    ),
}


def virtual_layout():
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4,))
    return layout


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_links_out_of_a_file_or_in_a_circle_are_refused(foreign, link, seal):
    add, message = LINKS[link]
    with h5py.File(foreign, "r+") as file:
        add(file)
    if seal:
        seal_file(foreign)
    with pytest.raises(DamagedFileError, match=message), open_hdf5(foreign):
        pass


def test_links_inside_a_file_and_groups_in_a_circle_are_read(foreign):
    with h5py.File(foreign, "r+") as file:
        file["alias"] = h5py.SoftLink("/group/y")
        file["group/again"] = file["group"]
    with open_hdf5(foreign) as file:
        assert file["alias"][2] == 2


@pytest.mark.parametrize("n", [3 * 10**9 // 2, 250 * 10**9])
def test_data_that_claim_too_much_are_refused_before_they_are_read(tmp_path, n):
    path = tmp_path / "zeros.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (n,), "f8", chunks=(1000,))
        file["small"] = [1.0, 2.0]
    with open_hdf5(path) as file:
        assert read_array(file["small"], path, "small").tolist() == [1.0, 2.0]
        with pytest.raises(
            DamagedFileError, match=r"x of .*zeros\.h5 would take \d+\.\d [GT]B of memory, the file itself"
        ):
            read_array(file["x"], path, "x")


@pytest.mark.parametrize(
    "value, got",
    [("text", "data of type object"), (np.zeros(2, "f8,i4"), "data of type"), (h5py.Empty("f8"), "an empty dataset")],
)
def test_what_is_not_numbers(tmp_path, value, got):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = value
        file.create_group("group")
    with open_hdf5(path) as file:
        with pytest.raises(DamagedFileError, match=rf"x of .*other\.h5 must be an array of numbers, got {got}"):
            read_array(file["x"], path, "x")
        with pytest.raises(DamagedFileError, match="got a group"):
            read_array(file["group"], path, "group")


def test_what_is_not_hdf5(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DamagedFileError, match=r"text\.h5 is not an HDF5 file"), open_hdf5(tmp_path / "text.h5"):
        pass


def test_the_child_finds_packages_where_this_process_does_and_keeps_to_limits_of_the_system(foreign, tmp_path):
    pytest.importorskip("resource", reason="limits of processes are a matter of POSIX")
    (tmp_path / "only_here.py").touch()
    source = Path(hdf5.hdf5_walk.__file__).read_text(encoding="utf-8")
    (tmp_path / "walk.py").write_text(
        source.replace("    import h5py\n\n    _limit", "    import h5py, only_here\n\n    _limit")
    )
    program = (
        "import resource, sys; from gmcore.inputs import hdf5\n"
        f"sys.path.append({str(tmp_path)!r}); hdf5.hdf5_walk.__file__ = {str(tmp_path / 'walk.py')!r}\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({hdf5.CPU_SECONDS - 1},) * 2)\n"
        f"with hdf5.open_hdf5({str(foreign)!r}) as file: print(len(file))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr
