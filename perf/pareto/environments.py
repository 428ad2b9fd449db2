"""A Python environment for each peer, made once in a cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MARK = "installed.txt"  # written last: what an interrupted installation leaves is made again


class NotInstalledError(Exception):
    """A peer whose packages pip could not install; the message is pip's."""


def interpreter(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the interpreter of an environment in `folder` that has these packages; this one if there are none.

    Raises
    ------
    NotInstalledError : pip found no version, or could not install it.
    """
    if not packages:
        return Path(sys.executable)
    python, mark = folder / "bin" / "python", folder / MARK
    wanted = "\n".join(packages)
    if mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"installing {', '.join(packages)} into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _checked([sys.executable, "-m", "venv", "--clear", str(folder)])
    _checked([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    mark.write_text(wanted)
    return python


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
        raise NotInstalledError(" ".join(errors[-1].split()) or f"{command[:4]} ended with code {done.returncode}")
