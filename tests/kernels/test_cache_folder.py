"""Compiled kernels are read only from a folder that nobody else can write to."""

import os
import warnings

import pytest

from gmcore.kernels import compile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="access is told from owner and mode")


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(base):
    return base / f"kernels-{compile.source_hash()}"


def test_new_folders_are_closed_to_others(base, folder):
    before = os.umask(0)
    try:
        assert compile._cache_folder() == str(folder)
    finally:
        os.umask(before)
    assert base.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == 0o700
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile._cache_folder() == str(folder)  # also when they are there


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("which", ["base", "folder"])
def test_a_folder_that_others_can_write_to_is_not_used(base, folder, which, mode):
    folder.mkdir(parents=True)
    (base if which == "base" else folder).chmod(mode)
    with pytest.warns(
        UserWarning, match=r"compiled anew in every process.* others may write to .*cache.* \(chmod go-w"
    ):
        assert compile._cache_folder() is None


def test_a_folder_of_another_user_is_not_used(folder, monkeypatch):
    folder.mkdir(parents=True)
    monkeypatch.setattr(compile.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.warns(UserWarning, match=r"cache.* belongs to another user; set NUMBA_CACHE_DIR to a folder of your"):
        assert compile._cache_folder() is None


def test_a_link_is_not_used(base, folder, tmp_path):
    base.mkdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match=r"kernels-\w+ is not a folder"):
        assert compile._cache_folder() is None


def test_a_folder_like_tmp_may_hold_the_cache(base, folder):
    base.mkdir()
    base.chmod(0o1777)
    assert compile._cache_folder() == str(folder)


def test_a_file_in_the_way(base):
    base.write_text("not a folder")
    with pytest.warns(UserWarning, match=r"because .*kernels-\w+ cannot be used: "):
        assert compile._cache_folder() is None
