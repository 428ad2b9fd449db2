"""Files appear whole or not at all: after an error, a kill, a full disk."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

import gmcore.files
from gmcore.files import (
    LOCK,
    LockError,
    WriteError,
    atomic_hdf5,
    atomic_path,
    lock_folder,
    remove_parts,
    streamed_hdf5,
)
from support.places import ROOT


def test_writes_and_makes_folders(tmp_path):
    target = tmp_path / "new" / "folder" / "file.txt"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal")
def test_a_kill_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    script = textwrap.dedent(
        """
        import sys
        from gmcore.files import atomic_path
        with atomic_path(sys.argv[1]) as temporary:
            with open(temporary, "wb") as file:
                file.write(b"new" * 100000)
                file.flush()
                print("writing", flush=True)
                sys.stdin.read()
        """
    )
    command = [sys.executable, "-c", script, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    "number, reason", [(errno.ENOSPC, "no space left on the disk"), (errno.EDQUOT, "the disk quota is used up")]
)
def test_a_full_disk_is_one_sentence(tmp_path, number, reason):
    target = tmp_path / "model.h5"
    target.write_text("old")
    with pytest.raises(
        WriteError, match=f"model.h5 could not be written: {reason}; an older file of that name is unchanged"
    ):
        with atomic_path(target) as temporary:
            temporary.write_text("ne")
            raise OSError(number, os.strerror(number))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, the always full device, on this system")
def test_a_really_full_device(tmp_path):
    """The temporary name leads to /dev/full: writes fail as they do on a full disk."""
    with pytest.raises(WriteError, match="no space left on the disk"), atomic_path(tmp_path / "file.h5") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("x" * 100000)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(n_bytes):
    """Writes beyond `n_bytes` of a file fail in the system, as they do on a disk that is full there."""
    resource = pytest.importorskip("resource", reason="limits of processes are a matter of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", ["hdf5", "npz", "text"])
def test_a_disk_that_fills_up_in_mid_write(tmp_path, write):
    """HDF5, which crashes the process when it meets a full disk itself, included."""
    target = tmp_path / "file.npz"
    target.write_text("old")
    values = np.arange(100000.0)
    with (
        largest_file(8192),
        pytest.raises(WriteError, match=r"file\.npz could not be written: the file would be"),
    ):
        if write == "hdf5":
            with atomic_hdf5(target) as file:
                file["a"], file["b"] = values, values
        else:
            with atomic_path(target) as temporary:
                np.savez(temporary, values=values) if write == "npz" else temporary.write_text(str(values.tolist()))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def fill(file, check):
    """Extendable data sets, groups and attributes, so that HDF5 reads its own structures again."""
    for number in range(20):
        item = file.create_dataset(f"group_{number}/values", (0, 50), maxshape=(None, 50), chunks=(7, 50))
        item.attrs["unit"] = "A"
    for rows in range(3):
        for number in range(20):
            item = file[f"group_{number}/values"]
            item.resize(20 * (rows + 1), axis=0)
            item[20 * rows :] = number + rows + np.arange(50.0)
            check()


def test_hdf5_that_is_written_piece_by_piece(tmp_path):
    target = tmp_path / "new" / "file.h5"
    with streamed_hdf5(target) as (file, check):
        fill(file, check)
    with h5py.File(target, "r") as file:
        for number in range(20):
            expected = number + np.repeat(np.arange(3.0), 20)[:, None] + np.arange(50.0)
            np.testing.assert_array_equal(file[f"group_{number}/values"], expected)
    before = target.read_bytes()
    with pytest.raises(RuntimeError, match="half way"), streamed_hdf5(target) as (file, check):
        file["a"] = [1.0]
        raise RuntimeError("half way")
    for limit in np.linspace(1, len(before) - 1, 20).astype(int):
        with (
            largest_file(int(limit)),
            pytest.raises(WriteError, match="would be larger than the system allows"),
        ):
            with streamed_hdf5(target) as (file, check):
                fill(file, check)
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_hdf5_that_stays_readable_after_the_disk_is_full(tmp_path):
    """Pieces that find no room are kept, so that HDF5 never meets an error, even if nobody checks."""
    found = []
    with largest_file(5000), pytest.raises(WriteError), streamed_hdf5(tmp_path / "file.h5") as (file, _):
        fill(file, lambda: None)
        file.flush()
        found = [file[f"group_{number}/values"][-1, 0] for number in range(20)]
    assert found == [number + 2 for number in range(20)]


def test_an_interrupt_while_hdf5_writes(tmp_path, monkeypatch):
    write, calls = gmcore.files.FileIO.write, []

    class Interrupted(gmcore.files.FileIO):
        def write(self, data):
            calls.append(len(data))
            if len(calls) == 10:
                raise KeyboardInterrupt
            return write(self, data)

    monkeypatch.setattr(gmcore.files, "FileIO", Interrupted)
    with pytest.raises(KeyboardInterrupt), streamed_hdf5(tmp_path / "file.h5") as (file, check):
        fill(file, check)
    assert list(tmp_path.iterdir()) == [] and len(calls) == 10


def test_hdf5_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.h5"
    with pytest.raises(RuntimeError, match="half way"), atomic_hdf5(target) as file:
        file["a"] = [1.0]
        raise RuntimeError("half way")
    assert not target.exists()
    with atomic_hdf5(target) as file:
        file["a"] = [1.0, 2.0]
    with h5py.File(target, "r") as file:
        assert file["a"][()].tolist() == [1.0, 2.0]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"could not be written: (not a directory|file exists)"):
        with atomic_path(tmp_path / "file" / "model.h5"):
            pass
    with pytest.raises(WriteError, match="could not be written: is a directory"):
        with atomic_path(tmp_path) as temporary:
            temporary.write_text("x")


def test_errors_of_other_files_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.txt"):
        open(tmp_path / "missing.txt")


# Files that a killed process leaves behind

WRITER = """
import os, sys
from gmcore.files import atomic_path, lock_folder
with lock_folder(sys.argv[1]), atomic_path(sys.argv[1] + "/file.bin") as temporary:
    temporary.write_bytes(b"new")
    print(temporary.name, os.getpid(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing_process(folder):
    """Another process that has locked the folder and writes there; gives its temporary file and its number."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        name, number = process.stdout.readline().split()
        yield folder / name, int(number)
        process.kill()


def write_in_new_process(path):
    code = "import sys; from gmcore.files import atomic_path\nwith atomic_path(sys.argv[1]) as t: t.write_text('x')"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)


@pytest.mark.skipif(os.name != "posix", reason="whether a process runs is not asked elsewhere")
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    with writing_process(tmp_path) as (part, _):
        write_in_new_process(tmp_path / "other.txt")
        assert part.is_file(), "removed while its process was writing"
    assert part.is_file(), "the process was not killed while it was writing"
    write_in_new_process(tmp_path / "other.txt")
    assert not part.exists() and not (tmp_path / "file.bin").exists()


def test_only_temporary_files_are_removed(tmp_path):
    """Those of unknown processes, another machine's for example, only a day after the last write."""
    kept = [
        ".a.part.h5",
        ".a.0123456789ab.h5",
        "a.0123456789ab.part.h5",
        ".a.0123456789xy.part.h5",
        ".a.0123456789a.part",
    ]
    parts = [tmp_path / name for name in (".model.0123456789ab.part.h5", ".file.ffffffffffff.part")]
    for path in [*parts, *(tmp_path / name for name in kept)]:
        path.write_text("x")
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    remove_parts(tmp_path)
    assert all(path.is_file() for path in parts)
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 1e6,) * 2)
    remove_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".folder.0123456789ab.part"}
    remove_parts(tmp_path / "missing")


# Folders that one process writes at a time


def test_a_lock_names_its_owner_and_ends_with_it(tmp_path):
    pytest.importorskip("fcntl")
    with writing_process(tmp_path) as (_, number):
        with pytest.raises(LockError, match=rf"another process \({number}\) is writing to the folder {tmp_path}: wait"):
            with lock_folder(tmp_path):
                pass
        with lock_folder(tmp_path, "another.lock"):
            pass
    assert (tmp_path / LOCK).is_file(), "a killed process leaves its lock file"
    with lock_folder(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_creates_its_folder_and_leaves_nothing_empty(tmp_path):
    with lock_folder(tmp_path / "empty"):
        pass
    with lock_folder(tmp_path / "full"):
        (tmp_path / "full" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]
    (tmp_path / "there").mkdir()
    with lock_folder(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()


def test_a_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match=r"the output folder .*file cannot be created: .*; choose another output"):
        with lock_folder(tmp_path / "file"):
            pass
    (tmp_path / LOCK).mkdir()
    with pytest.raises(LockError, match=r"the output folder .* cannot be written to: Is a directory; choose another"):
        with lock_folder(tmp_path):
            pass


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / f"{'字' * 83}.h5"  # 252 bytes of 255
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert [path.name] == os.listdir(tmp_path) and path.read_text() == "new"


def test_a_disk_that_flushes_no_folders_is_written_to(tmp_path, monkeypatch):
    def fsync(descriptor, flush=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "new"
