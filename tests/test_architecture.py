"""What the architecture promises: imports go one way, the compiled-kernel cache notices changes, no stray prints."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from gmcore.kernels.compile import source_hash
from support.places import ROOT

GROUND = "errors version suggest files inputs running outputs formats threads units anisotropy quantities"
FACES = "model model_file model_summary calculator tensor_gradients"
FLOORS = {
    # floor: the floors that it may import; a floor is a room, or some of the files at the top of gmcore
    "kernels": "",
    "ground": "",
    "extxyz": "ground kernels",
    "device": "ground kernels",
    "engine": "ground kernels device",
    "molecules": "ground engine",
    "uncertainty": "ground engine",
    "config": "ground kernels",
    "faces": "ground device engine uncertainty",
    "data": "ground extxyz config engine",
    "exchange": "ground data molecules",
    "labeling": "ground config data molecules exchange faces",
    "evaluation": "ground extxyz config data engine uncertainty faces",
    "dynamics": "ground kernels extxyz uncertainty config device engine molecules faces evaluation",
    "engines": "ground engine molecules faces dynamics",
    "analysis": "ground uncertainty config data engine molecules faces evaluation dynamics",
    "report": "ground uncertainty config evaluation analysis",
    "selection": "ground config data engine uncertainty molecules faces evaluation dynamics analysis",
    "workflow": "ground config evaluation analysis",
    "commands": "ground uncertainty config data molecules exchange labeling faces evaluation dynamics engines "
    "analysis selection report workflow",
    "gmkeras": "ground kernels device engine config data faces evaluation",
}
EXCEPTIONS = {("gmcore.commands.training", "gmkeras.training")}
"""The command `train` starts the frontend; nothing else in gmcore knows it."""
OPEN_TO_ALL = {"gmcore", "gmcore.__main__"}
"""The public names and the entry point only point at other modules."""
THIRD_PARTY_IN_KERNELS = ("numba", "numpy", "llvmlite")


def sources(room: str) -> list[Path]:
    files = [path for path in (ROOT / room).rglob("*.py") if path.parent.name != "__pycache__"]
    if not files:
        raise AssertionError(f"no files in {room}")
    return files


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("gmcore", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for room in ("gmcore", "kernels", "gmkeras") for path in sources(room)}


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, inside functions too unless `top_level_only`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names.update(modules or {node.module})
    return names


def floor_of(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == "gmkeras":
        return "gmkeras"
    room = rest.split(".")[0]
    return "ground" if room in GROUND.split() else "faces" if room in FACES.split() else room


IMPORTS = {module: imported(path) & MODULES.keys() for module, path in MODULES.items()}


def test_every_module_lies_on_a_floor():
    assert {floor_of(module) for module in MODULES} - {"", "__main__"} == FLOORS.keys()


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_the_floors(floor):
    allowed = {floor, *FLOORS[floor].split()}
    for module, targets in IMPORTS.items():
        if floor_of(module) != floor or module in OPEN_TO_ALL:
            continue
        for target in targets:
            if (module, target) not in EXCEPTIONS:
                assert floor_of(target) in allowed, f"{module} imports {target}, {floor} may import {FLOORS[floor]}"


def test_the_floors_have_no_circle():
    TopologicalSorter({floor: below.split() for floor, below in FLOORS.items()}).prepare()


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: targets - {module} for module, targets in IMPORTS.items() if module not in OPEN_TO_ALL}
    TopologicalSorter(graph).prepare()


def test_the_exceptions_are_needed():
    for module, target in EXCEPTIONS:
        assert target in IMPORTS[module]


def test_gmcore_has_few_files_at_its_top():
    assert len(list((ROOT / "gmcore").glob("*.py"))) <= 18


def test_every_room_is_installed():
    rooms = {module_name(path.parent / "__init__.py") for room in ("gmcore", "gmkeras") for path in sources(room)}
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), flags=re.M | re.S)[1]
    assert set(re.findall(r'"([\w.]+)"', listed)) == rooms | {"gmcore.kernels"}


def test_docstrings_name_their_errors_in_one_way():
    for module, path in MODULES.items():
        assert not re.search(r"^\s+Errors\n\s+------$", path.read_text(encoding="utf-8"), flags=re.M), module


def test_kernels_import_little():
    for path in sources("kernels"):
        for name in imported(path):
            package = name.split(".")[0]
            ours = name.startswith("gmcore.kernels.")
            assert ours or package in (*sys.stdlib_module_names, *THIRD_PARTY_IN_KERNELS), f"{path.name}: {name}"


def test_gmcore_imports_neither_frameworks_nor_the_frontend_at_import_time():
    for path in sources("gmcore"):
        for name in imported(path, top_level_only=True):
            assert name.split(".")[0] not in ("tensorflow", "keras", "gmkeras", "cupy", "kernels"), f"{path} {name}"


def test_library_imports_are_absolute():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}:{node.lineno}"


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels", "perf"])
def test_one_room_knows_cupy(room):
    """And one file of it imports CuPy, by its name in `gmcore.device.MODULES`."""
    for path in sources(room):
        tree = ast.parse(path.read_text())
        named = any(isinstance(node, ast.Constant) and node.value == "cupy" for node in ast.walk(tree))
        imports = any(name.split(".")[0] == "cupy" for name in imported(path))
        assert not imports, path
        assert named == (path == ROOT / "gmcore" / "device" / "__init__.py"), path


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels"])
def test_library_code_neither_prints_nor_asserts(room):
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} assert"
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            assert called != "print", f"{path.name}:{node.lineno} print"


@pytest.mark.parametrize("room", ["gmcore", "gmkeras", "kernels"])
def test_files_stay_readable(room):
    lengths = {path: len(path.read_text().splitlines()) for path in sources(room)}
    assert max(lengths.values()) <= 450, max(lengths, key=lengths.get)


def test_importing_gmcore_brings_no_tensorflow():
    code = "import sys, gmcore; gmcore.GaussianMoments, gmcore.load_model; print('tensorflow' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.slow
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
