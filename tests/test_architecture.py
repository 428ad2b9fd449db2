"""What the architecture promises: imports go one way, the compiled-kernel cache notices changes, no stray prints."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gmcore.kernels.compile import source_hash
from support.places import ROOT

ALLOWED_IN_KERNELS = (*sys.stdlib_module_names, "numba", "numpy", "llvmlite")


def imported(tree: ast.AST, top_level_only: bool = False) -> set[str]:
    names = set()
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return names


def sources(room: str) -> list[Path]:
    files = [path for path in (ROOT / room).rglob("*.py") if path.parent.name != "__pycache__"]
    if not files:
        raise AssertionError(f"no files in {room}")
    return files


def test_kernels_import_nothing_above_them():
    for path in sources("kernels"):
        for name in imported(ast.parse(path.read_text())):
            allowed = name.split(".")[0] in ALLOWED_IN_KERNELS or name.startswith("gmcore.kernels")
            assert allowed, f"{path.name} imports {name}"


def test_gmcore_does_not_import_the_frontend():
    for path in sources("gmcore"):
        for name in imported(ast.parse(path.read_text()), top_level_only=True):
            assert name.split(".")[0] not in ("tensorflow", "keras", "gmkeras", "cupy", "kernels"), f"{path} {name}"


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels", "perf"])
def test_one_file_knows_cupy(room):
    for path in sources(room):
        tree = ast.parse(path.read_text())
        named = any(isinstance(node, ast.Constant) and node.value == "cupy" for node in ast.walk(tree))
        imports = any(name.split(".")[0] == "cupy" for name in imported(tree))
        assert (named or imports) == (path.name == "cuda.py"), path


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels"])
def test_library_code_neither_prints_nor_asserts(room):
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} assert"
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            assert called != "print", f"{path.name}:{node.lineno} print"


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels"])
def test_files_stay_readable(room):
    lengths = {path.name: len(path.read_text().splitlines()) for path in sources(room)}
    assert max(lengths.values()) <= 450, max(lengths, key=lengths.get)


def test_importing_gmcore_brings_no_tensorflow():
    code = "import sys, gmcore; gmcore.GaussianMoments, gmcore.load_model; print('tensorflow' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "False"


def test_the_cache_notices_a_changed_formula(tmp_path):
    """Numba's own cache looks only at the file of the compiled loop and would go on with the old formula."""
    for room in ("gmcore", "kernels"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np; from gmcore.kernels import arguments\n"
        "from gmcore.kernels.compile import exact_jit; from gmcore.kernels import probe_cpu\n"
        "out = np.zeros(1); probe_cpu.fill(np.array([1.0]), out); print(out[0])\n"
    )
    probe = (
        "from gmcore.kernels.compile import exact_jit\nfrom gmcore.kernels.formulas import cutoff\n\n\n"
        "@exact_jit\ndef fill(x, out):\n    out[0] = cutoff(x[0], x[0] + x[0])[0]\n"
    )
    (tmp_path / "kernels" / "probe_cpu.py").write_text(probe)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run() -> float:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert run() == pytest.approx(0.5)
    assert list((tmp_path / "cache").rglob("*.nbi")), "nothing was cached"
    assert run() == pytest.approx(0.5)
    formulas = tmp_path / "kernels" / "formulas.py"
    text = formulas.read_text()
    changed = text.replace("return c * c, -k", "return c * c + c * c, -k")
    if changed == text:
        raise AssertionError("the formula to change was not found")
    formulas.write_text(changed)
    assert run() == pytest.approx(1.0)


def test_the_hash_covers_every_kernel_file(tmp_path):
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    before = source_hash(tmp_path / "kernels")
    for path in (tmp_path / "kernels").glob("*.py"):
        path.write_text(path.read_text() + "\n")
        after = source_hash(tmp_path / "kernels")
        assert after != before
        before = after
