"""What is said where device="cuda" cannot be had, and that nothing of CUDA is imported before it is asked for."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import types

import numba
import pytest

from gmcore import GMCalculator, load_model
from gmcore.device.cublas import load_library
from gmcore.device.cuda import CudaError, check_capability, open_device
from gmcore.engine.network_cuda import check_matmul
from gmcore.errors import GMError
from support.models import random_model
from support.places import ROOT


class NoDriver(RuntimeError):
    pass


def module(name: str) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return made


def fake_cupy(count) -> types.ModuleType:
    """A CuPy on a machine with `count()` devices, each of compute capability 6.1."""
    runtime = types.SimpleNamespace(
        CUDARuntimeError=NoDriver,
        getDeviceCount=count,
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: {"name": b"Old Card", "major": 6, "minor": 1},
    )
    cupy = module("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    return cupy


@pytest.fixture(autouse=True)
def no_simulator(monkeypatch):
    monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 0)
    open_device.cache_clear()
    yield
    open_device.cache_clear()


@pytest.fixture
def model_file(tmp_path):
    return random_model(tmp_path / "model.h5", r_max=3.0)


def test_no_cupy(monkeypatch, model_file):
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = r"device='cuda' needs CuPy: pip install 'gmtensor\[cuda12\]' or 'gmtensor\[cuda13\]'"
    for make in (load_model, GMCalculator):
        with pytest.raises(CudaError, match=message):
            make(model_file, device="cuda")


def test_no_numba_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(lambda: 1))
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    with pytest.raises(CudaError, match=r"needs numba-cuda: pip install 'gmtensor\[cuda12\]'"):
        open_device()


def test_no_driver_and_no_card(monkeypatch):
    def no_driver():
        raise NoDriver("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setitem(sys.modules, "numba_cuda", module("numba_cuda"))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(no_driver))
    message = r"needs an NVIDIA card and its driver, but CUDA reports: cudaErrorInsufficient"
    with pytest.raises(CudaError, match=message):
        open_device()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(lambda: 0))
    with pytest.raises(CudaError, match=r"needs an NVIDIA card and its driver, but CUDA finds no card"):
        open_device()


def test_a_card_that_is_too_old(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_cuda", module("numba_cuda"))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(lambda: 1))
    with pytest.raises(CudaError, match=r"compute capability of the card must be at least 7.0, got 6.1 \(Old Card\)"):
        open_device()
    check_capability("New Card", (9, 0))


def test_no_cublas(monkeypatch):
    monkeypatch.setattr("gmcore.device.cublas.find_spec", lambda name: None)  # wheels of CUDA may have been installed
    with pytest.raises(GMError, match=r"device='cuda' needs cuBLAS, which cannot be loaded: "):
        load_library(0)


def test_precision_of_products_by_name():
    with pytest.raises(GMError, match=r"matmul must be one of float32, tf32, got 'bf16'"):
        check_matmul("bf16")


def test_the_command_line_says_it_in_one_sentence(model_file, tmp_path):
    code = "import sys; sys.modules['cupy'] = None; from gmcore.commands.app import main; main()"
    command = [sys.executable, "-c", code, "predict", str(model_file), "x.xyz", "-o", "y.h5", "--device", "cuda"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean_environment())
    assert run.returncode == 2
    assert run.stderr.startswith("error: device='cuda' needs CuPy: pip install")
    assert len(run.stderr.strip().splitlines()) == 1


def test_nothing_of_cuda_is_imported_until_asked_for(model_file):
    code = (
        "import sys; from gmcore import load_model; from ase import Atoms\n"
        f"load_model({str(model_file)!r}).predict(Atoms('HO', [[0, 0, 0], [1, 0, 0]]))\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('cupy', 'numba_cuda') or 'cuda' in name\n"
        "       and name.startswith('gmcore')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=clean_environment()
    )
    assert run.stdout.strip() == "[]"


def clean_environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
