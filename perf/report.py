"""Rows of results: shown as a table, kept as JSON per machine together with what they were measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gmcore.files import atomic_path
from gmcore.threads import available_cores
from perf.harness import QUIET, ROOT, Comparison

PACKAGES = ("numpy", "numba", "llvmlite", "ase", "tensorflow", "keras", "jax", "apax", "vesin", "matscipy")


@dataclass(frozen=True)
class Row:
    """One number.

    what : the code measured; system : on what; value, lower, upper : median and quartiles in `unit`.
    ratio : to the time of `to` on the same system, paired, with its quartiles.
    target : what is asked of the ratio, or of the value where there is none.
    first_call_s : seconds of the first call, compilation or loading of compiled code included.
    disturbed : others used the machine too much, see `perf.harness`; there is no ratio then.
    """

    what: str
    system: str
    unit: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    ratio: tuple[float, float, float] | None = None
    to: str = ""
    target: str = ""
    first_call_s: float | None = None
    note: str = ""
    disturbed: bool = False

    @classmethod
    def timed(cls, comparison: Comparison, what: str, system: str, unit: str, per: float = 1, to: str = "", **fields):
        """From a comparison: time of one call over `per` things; `unit` starts with us, ms or s."""
        time = comparison.time(what) * ({"us": 1e6, "ms": 1e3, "s": 1.0}[unit.split("/")[0]] / per)
        if comparison.disturbed:  # a ratio would mislead: the parts do not suffer alike
            fields |= disturbance(comparison.foreign)
        elif to:
            paired = comparison.ratio(what, to)
            fields |= {"ratio": (paired.median, paired.lower, paired.upper), "to": to}
        first = comparison.first_call[what]
        return cls(what, system, unit, time.median, time.lower, time.upper, first_call_s=first, **fields)


def disturbance(foreign: float) -> dict:
    """Fields of a row for the share of the processors that others used; none where it is small or not known."""
    if not foreign > QUIET:
        return {}
    return {"note": f"disturbed: others used {foreign:.0%} of the processors", "disturbed": True}


@dataclass
class Report:
    """Rows by benchmark, merged into the file of this machine."""

    folder: Path = ROOT / "perf" / "results"
    threads: int = 0
    benches: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of this machine."""
        return self.folder / f"{slug(machine()['name'])}.json"

    def save(self) -> list[str]:
        """Write what was measured and return the names of benchmarks left out, those with disturbed rows.

        They and the ones that were not run keep what the file had.
        """
        left_out = [name for name, rows in self.benches.items() if any(row.disturbed for row in rows)]
        kept = {name: rows for name, rows in self.benches.items() if name not in left_out}
        if not kept:
            return left_out
        whole = json.loads(self.path.read_text()) if self.path.exists() else {"benches": {}}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        for name, rows in kept.items():
            # each with its own commit and versions: a file may be filled in several sittings
            whole["benches"][name] = {
                "measured": now,
                "commit": commit(),
                "threads": self.threads,
                "versions": versions(),
                "rows": [_compact(row) for row in rows],
            }
        whole = {"machine": machine(), "benches": dict(sorted(whole["benches"].items()))}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as path:
            Path(path).write_text(json.dumps(whole, indent=1) + "\n")
        return left_out


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    columns = ("system", "what", "median", "quartiles", "unit", "ratio", "to", "target", "first call, s")
    table = Table(*columns, title=title, title_justify="left")
    system = None
    for row in rows:
        table.add_row(
            "" if row.system == system else row.system,
            row.what,
            "absent" if row.value is None else _number(row.value),
            "" if row.lower is None else f"{_number(row.lower)} .. {_number(row.upper)}",
            row.unit,
            "" if row.ratio is None else _number(row.ratio[0]),
            row.to,
            row.target,
            "" if row.first_call_s is None else _number(row.first_call_s),
        )
        system = row.system
    console = Console(width=150)
    console.print(table)
    for note in dict.fromkeys(row.note for row in rows if row.note):
        console.print(f"  {note}", markup=False)  # names of extras stand in brackets


def machine() -> dict[str, str | int]:
    """Name (processor and usable cores), operating system and memory."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = names[0] if names else model
    model = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", model)
    cores = available_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "name": f"{' '.join(model.split())} {cores} cores",
        "cores": cores,
        "memory_gib": math.floor(memory),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python and the packages that matter; "absent" where one is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def commit() -> str:
    """Commit of the working tree, with "+changes" where files of the code differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "gmcore", "gmkeras", "kernels", "perf/*.py")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def slug(text: str) -> str:
    """Lower-case words joined by hyphens.

    >>> slug("Intel Xeon 8481C 2 cores")
    'intel-xeon-8481c-2-cores'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _compact(row: Row) -> dict:
    fields = {key: value for key, value in asdict(row).items() if value not in (None, "", False)}
    return {key: _rounded(value) for key, value in fields.items()}


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
