"""Where things lie, for tests that start processes or read files of the repository."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


def environment(**variables: str) -> dict[str, str]:
    """Environment of a process that imports this checkout and the helpers of its tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])} | variables
