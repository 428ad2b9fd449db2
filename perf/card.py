"""Everything that a machine with a GPU is asked, in eight minutes: `python -m perf card`.

Parts run in order of worth, each in a process of its own with a time limit of its own; a part that fails, crashes or
hangs is a row with the reason, and the next one begins. One table comes last; the same rows are in a file that is
written again after every part. This file and what it imports need
the standard library only, so that it can say what is missing.

    python -m perf card                      results in perf/results/card-NAME.json
    python -m perf card --output FILE        somewhere else
    python -m perf card --only tests kernels some parts
    python -m perf card --rehearse           no GPU: the simulator, tiny sizes, a few kernels compiled
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from gmcore.device import MODULES

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 8.0

PACKAGES = {
    "numpy": "numpy", "scipy": "scipy", "numba": "numba", "h5py": "h5py", "pytest": "pytest", "ase": "ase",
    "pydantic": "pydantic", "yaml": "pyyaml", "threadpoolctl": "threadpoolctl", "rich": "rich",
}  # fmt: skip
"""Modules that every part needs, with the names under which pip knows them; TensorFlow is not among them."""
CUDA_PACKAGES = {"CuPy": "cupy-cuda12x", "numba-cuda": "numba-cuda[cu12]"}
"""Names for pip of the packages in `gmcore.device.MODULES`; with CUDA 13 they end in 13."""

TEST_S = 60.0
"""Seconds that one test may take before its process is ended."""
TAIL = 3000
"""Characters of the output of a part that failed, in the results file."""


class Part(NamedTuple):
    """seconds: time limit; what: one line for `--help` and the table."""

    seconds: float
    what: str


PARTS = {
    "environment": Part(15, "card, driver, versions"),
    "compile": Part(80, "all kernels for this card, in several processes"),
    "first": Part(30, "first evaluation against plain NumPy"),
    "tests": Part(110, "tests marked gpu, CPU against card"),
    "energy_forces": Part(35, "energy and forces, 1e5 atoms"),
    "fast": Part(20, "the same with preset fast"),
    "md_step": Part(20, "a step of dynamics, 256 atoms"),
    "replicas": Part(25, "8 x 53 atoms, committee of three, D every 8 steps"),
    "neighbors": Part(15, "neighbor list, 131 072 atoms"),
    "million": Part(25, "1e6 atoms and their memory"),
    "kernels": Part(20, "time of every kernel beside its prediction"),
    "sanitizer": Part(45, "compute-sanitizer on the smallest tests"),
    "profile": Part(35, "ncu on the slowest kernel"),
}


class Outcome(NamedTuple):
    """How a process ended: its exit code, None if it was ended from here, and the end of its output."""

    code: int | None
    tail: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.only or () if name not in PARTS]
    if unknown:
        print(f"parts are {', '.join(PARTS)}, got {unknown[0]!r}", file=sys.stderr)
        return 2
    missing = missing_packages(options.rehearse)
    if missing:
        print(f"missing: {' '.join(missing)}: pip install {' '.join(map(repr, missing))}", file=sys.stderr)
        return 2
    day = CardDay(options.minutes, options.rehearse, options.output)
    for name in options.only or PARTS:
        day.run(name)
    print(table(day.rows))
    print(f"written: {day.path}")
    return int(any(row["status"] == "failed" for row in day.rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf card", description=__doc__.splitlines()[0])
    parts = ", ".join(f"{name} ({part.what})" for name, part in PARTS.items())
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"some of: {parts}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together (default: 8)")
    parser.add_argument("--output", type=Path, default=None, help="results file (JSON)")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: the simulator and tiny sizes")
    return parser


def missing_packages(rehearse: bool) -> list[str]:
    """Names for pip of the packages that are not installed."""
    needed = dict(PACKAGES)
    if not rehearse:
        needed |= {module: CUDA_PACKAGES[name] for name, module in MODULES.items()}
    return [name for module, name in needed.items() if find_spec(module) is None]


class CardDay:
    """Parts that have run, and their rows.

    Parameters
    ----------
    minutes : for all parts; the limit of each is scaled with it.
    rehearse : whether the simulator stands in for the card.
    output : results file; named after the card if None.

    Attributes
    ----------
    rows : dicts with part, what, status ("ok", "failed", "absent"), and value, unit, target, predicted, note.
    """

    def __init__(self, minutes: float, rehearse: bool, output: Path | None):
        self.rows: list[dict] = []
        self.logs: dict[str, str] = {}
        self.rehearse, self._output = rehearse, output
        self._scale, self._end = minutes / MINUTES, time.monotonic() + 60.0 * minutes

    @property
    def path(self) -> Path:
        """Of the results file."""
        if self._output is not None:
            return self._output
        card = "rehearsal" if self.rehearse else self._value("card") or "unknown"
        return ROOT / "perf" / "results" / f"card-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}.json"

    def _value(self, what: str) -> str:
        return next((str(row["value"]) for row in self.rows if row["what"] == what), "")

    def run(self, name: str) -> None:
        """Run one part, show its rows and write the results file."""
        limit = min(self._scale * PARTS[name].seconds, self._end - time.monotonic())
        start = time.monotonic()
        if limit < 1.0:
            rows = [failure(name, "not run: the time was up")]
        else:
            rows = self._tests(limit) if name == "tests" else self._part(name, limit)
        for row in rows:
            row["part"] = name
        self.rows += rows
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        for row in rows:
            print(f"  {sentence(row)}", flush=True)
        self._write()

    def _part(self, name: str, limit: float) -> list[dict]:
        """Rows that the process of a part wrote, and one more if it did not end well."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows")
            known = Path(folder, "known")
            known.write_text(json.dumps(self.rows))
            command = [sys.executable, "-m", "perf.card_parts", name, str(path), str(known)]
            outcome = run_process(command, limit, self._environment())
            rows = read_lines(path)
        if outcome.code != 0:
            self.logs[name] = outcome.tail
            rows.append(failure(name, reason(outcome, limit)))
        return rows or [failure(name, "it ended without a result")]

    def _tests(self, limit: float) -> list[dict]:
        files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text())
        results, log = run_tests(["-m", "gpu", *files], limit, TEST_S, self._environment())
        self.logs["tests"] = log
        return rows_of_tests(results)

    def _environment(self) -> dict[str, str]:
        extra = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
        if self.rehearse:
            # Python all through: compiling the formulas for the simulator would take longer than all the rest
            extra |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
        return os.environ | extra

    def _write(self) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        content = {"measured": now, "rehearsal": self.rehearse, "rows": self.rows, "logs": self.logs}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=1) + "\n")


# processes -----------------------------------------------------------------------------------------------------------


def run_process(
    command: Sequence[str], limit: float, environment: Mapping[str, str], stalled: Callable[[], bool] = lambda: False
) -> Outcome:
    """Run a command; end it and all that it started after `limit` seconds, or when `stalled` says so."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + limit
        code = process.poll()
        while code is None and time.monotonic() < end and not stalled():
            time.sleep(0.05)
            code = process.poll()
        if code is None:
            end_group(process)
        output.seek(0)
        return Outcome(code, output.read().decode(errors="replace")[-TAIL:])


def end_group(process: subprocess.Popen) -> None:
    """End a process and its children; one that the driver holds fast is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=5.0)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return


def reason(outcome: Outcome, limit: float) -> str:
    """One sentence on a process that did not end well."""
    if outcome.code is None:
        return f"ended after its time limit of {limit:.0f} s"
    last = [line.strip() for line in outcome.tail.splitlines() if line.strip()]
    last = [
        line.removeprefix("E ").strip() for line in last if line.startswith("E ")
    ] or last  # errors in pytest's words
    how = f"signal {-outcome.code}" if outcome.code < 0 else f"exit code {outcome.code}"
    return f"{how}: {last[-1] if last else 'no output'}"


def read_lines(path: Path) -> list[dict]:
    """JSON objects, one a line; a line that was not finished is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


# tests ---------------------------------------------------------------------------------------------------------------


def run_tests(
    selection: Sequence[str], limit: float, test_s: float, environment: Mapping[str, str]
) -> tuple[dict[str, dict], str]:
    """Run tests, in a new process after each that fails, crashes or hangs: a broken CUDA context stays broken.

    Returns
    -------
    Per test "outcome" (passed, failed, skipped, crashed, hung), "seconds" and "message"; and the output of the
    processes that did not end well.
    """
    end, results, log = time.monotonic() + limit, {}, ""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, "records")
        extra = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "GMTENSOR_CARD_RECORDS": str(records)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "perf.card_pytest", "-p", "no:cacheprovider"]
        while (left := end - time.monotonic()) > 0.0:
            watch = _Watch(records, test_s)
            outcome = run_process([*command, *selection], left, environment | extra, watch.stalled)
            before = len(results)
            running = None
            for record in read_lines(records):
                running = record["test"] if record["outcome"] == "started" else None
                if running is None:
                    results[record["test"]] = record
            if outcome.code not in (0, 5):
                log = (log + outcome.tail)[-TAIL:]
            if running is not None:  # its end was not recorded
                what = "hung" if outcome.code is None else "crashed"
                record = {"test": running, "outcome": what, "seconds": None, "message": reason(outcome, test_s)}
                results[running] = record
                with records.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            if outcome.code in (0, 5) or len(results) == before:
                if outcome.code not in (0, 5):
                    results["collection"] = {"outcome": "failed", "seconds": None, "message": reason(outcome, left)}
                break
    return results, log


class _Watch:
    """Tells when a test has been running for too long."""

    def __init__(self, records: Path, test_s: float):
        self._records, self._test_s, self._size, self._since = records, test_s, -1, time.monotonic()

    def stalled(self) -> bool:
        size = self._records.stat().st_size if self._records.exists() else 0
        if size != self._size:
            self._size, self._since = size, time.monotonic()
        return time.monotonic() - self._since > self._test_s


def rows_of_tests(results: Mapping[str, dict]) -> list[dict]:
    """One row that counts, and one for each test that did not pass; those skipped share rows by reason."""
    counts: dict[str, int] = {}
    for record in results.values():
        counts[record["outcome"]] = counts.get(record["outcome"], 0) + 1
    bad = {name: record for name, record in results.items() if record["outcome"] not in ("passed", "skipped")}
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none was found"
    status = "failed" if bad or not counts else "ok" if counts.get("passed") else "absent"
    rows = [{"what": "tests marked gpu", "status": status, "value": text, "target": "all pass"}]
    for name, record in bad.items():
        rows.append({"what": name, "status": "failed", "value": record["outcome"], "note": record["message"]})
    reasons: dict[str, int] = {}
    for record in results.values():
        if record["outcome"] == "skipped":
            reasons[record["message"]] = reasons.get(record["message"], 0) + 1
    rows += [{"what": f"{n} tests skipped", "status": "absent", "value": "", "note": why} for why, n in reasons.items()]
    return rows


# rows ----------------------------------------------------------------------------------------------------------------


def failure(name: str, note: str) -> dict:
    """Row of a part without a result."""
    return {"what": PARTS[name].what, "status": "failed", "value": "", "note": note}


def sentence(row: Mapping) -> str:
    """One line of text for a row."""
    value = " ".join(str(row[key]) for key in ("value", "unit") if row.get(key) not in (None, ""))
    text = f"{row['what']}: {value or row['status']}"
    return text + (f" ({row['note']})" if row.get("note") else "")


def table(rows: Sequence[Mapping]) -> str:
    """The compact table that is printed last."""
    header = ("part", "what", "measured", "target", "predicted", "")
    cells = [header]
    part = ""
    for row in rows:
        value = row.get("value")
        measured = "" if value in (None, "") else f"{value} {row.get('unit', '')}".strip()
        told = [str(row.get(key) or "") for key in ("target", "predicted")]
        mark = {"ok": "", "absent": "absent"}.get(row["status"], row["status"])
        note = " ".join(str(row.get("note") or "").split())
        cells.append((
            "" if row["part"] == part else row["part"], row["what"][-58:], measured[:44], *told,
            f"{mark}{': ' if mark and note else ''}{note}"[:70],
        ))  # fmt: skip
        part = row["part"]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


if __name__ == "__main__":
    sys.exit(main())
