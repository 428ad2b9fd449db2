"""A copy of the library whose table of quantities has two rows more, and scripts that run in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.places import ROOT

ROWS = """
    Quantity("torques", "eV", (3,), "torque components", "torques", per_atom=True, aliases=("T",)),
    Quantity("quadrupole", "e*A^2", (3, 3), "quadrupole elements", "quadrupole", traceless=True),
)
\"\"\"All quantities"""
END = ')\n"""All quantities'


def copy_with_more_quantities(folder: Path) -> Path:
    """Copy the packages to a folder and add a vector per atom and a traceless tensor to the table."""
    for room in ("gmcore", "kernels", "gmkeras"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    table = folder / "gmcore" / "quantities.py"
    text = table.read_text(encoding="utf-8")
    if text.count(END) != 1:
        raise AssertionError("the end of the table was not found")
    table.write_text(text.replace(END, ROWS.lstrip("\n")), encoding="utf-8")
    return folder


def run_in(folder: Path, script: str) -> Any:
    """Run a script with the copy first on its path; return what it prints last, read as JSON."""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])
