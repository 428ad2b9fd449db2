"""Plugin of pytest for `perf.card`: what each test did, a line of JSON at a time; tests that are recorded do not run.

GMTENSOR_CARD_RECORDS names the file; with GMTENSOR_CARD_PLAIN_MEMORY every array is an allocation of its own, so that
a memory checker sees where it ends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

RECORDS = Path(os.environ["GMTENSOR_CARD_RECORDS"])


def _write(test: str, outcome: str, seconds: float | None = None, message: str = "") -> None:
    record = {"test": test, "outcome": outcome, "seconds": seconds, "message": message}
    with RECORDS.open("a") as file:
        file.write(json.dumps(record) + "\n")


def pytest_collection_modifyitems(config, items) -> None:
    """Leave out what has an outcome."""
    from perf.card import read_lines

    done = {record["test"] for record in read_lines(RECORDS) if record["outcome"] != "started"}
    left_out = [item for item in items if item.nodeid in done]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in done]
    if os.environ.get("GMTENSOR_CARD_PLAIN_MEMORY"):
        from gmcore.device.cuda import open_device

        open_device().xp.cuda.set_allocator(None)


def pytest_collectreport(report) -> None:
    """A file that was skipped as a whole, such as one that needs TensorFlow."""
    if report.skipped:
        _write(report.nodeid, "skipped", 0.0, _last_line(report.longrepr))


def pytest_runtest_logstart(nodeid: str) -> None:
    """Say which test is running, in case it never ends."""
    _write(nodeid, "started")


def pytest_runtest_logreport(report) -> None:
    """Say how it ended: at its call, or before where it was skipped or its fixtures failed."""
    if report.when == "call" or (report.when == "setup" and not report.passed):
        _write(report.nodeid, report.outcome, report.duration, "" if report.passed else _last_line(report.longrepr))
    elif report.when == "teardown" and report.failed:
        _write(report.nodeid, "failed", report.duration, _last_line(report.longrepr))


def _last_line(longrepr) -> str:
    """The error in one line."""
    if isinstance(longrepr, tuple):  # skipped: file, line, reason
        return longrepr[2].removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr)
    return text.strip().splitlines()[0][:300] if text.strip() else ""
