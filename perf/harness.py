"""The one place that measures: warm-up, paired timing, spread, ratios, and what a fresh process needs.

Machines drift: clocks change and neighbors come and go. Callables that are compared therefore take turns in one
process, round after round, in an order that rotates; a ratio is the median over the rounds of the ratio within a
round, so that drift slower than a round cancels. A sample repeats the call until it is long against the clock.
The first call, with compilation or the loading of compiled code, is timed apart and never enters a median.

A busy machine does worse than slow things down: two BLAS threads wait for each other, and the floor rises a
hundredfold while code that does not wait hardly suffers. Rounds in which other processes (or other guests of the
host) used a good part of the processors are therefore set aside, and measuring goes on for a while to get quiet ones.
Where too few are to be had all are kept and the result says that it was disturbed.

The callables disturb each other too: threads of BLAS, OpenMP, TensorFlow and JAX keep turning for tens of milliseconds
after their work, in wait for more, and take cores from whoever comes next. So every sample begins with a pause that
lets them fall asleep. Calls that do not count follow: threads that wake up share a core at first, and for about 20 ms
two of them were seen to be no faster than one.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

QUIET = 0.12  # share of the processors that others may use; the kernel counts in ticks of 10 ms, a round is longer
PAUSE_S = 0.1  # OpenBLAS turns longest, 2^26 cycles
PATIENCE_S = 60.0  # how long to look for quiet rounds; `python -m perf --patience` sets it


@dataclass(frozen=True)
class Timing:
    """Quartiles of repeated measurements, in seconds, or of a ratio."""

    median: float
    lower: float
    upper: float
    n_samples: int

    @classmethod
    def of(cls, samples: np.ndarray) -> Timing:
        lower, median, upper = np.quantile(samples, [0.25, 0.5, 0.75])
        return cls(float(median), float(lower), float(upper), len(samples))

    def __mul__(self, factor: float) -> Timing:
        return Timing(self.median * factor, self.lower * factor, self.upper * factor, self.n_samples)


@dataclass(frozen=True)
class Comparison:
    """Samples of the rounds that count.

    seconds : name -> (n_rounds,) time of one call.
    first_call : name -> time of the very first call.
    foreign : median share of the processors that others used in these rounds; NaN where it is not known.
    """

    seconds: dict[str, np.ndarray]
    first_call: dict[str, float]
    foreign: float

    @property
    def disturbed(self) -> bool:
        """Whether others used the machine too much for the numbers to be trusted."""
        return self.foreign > QUIET

    def time(self, name: str) -> Timing:
        """Seconds per call."""
        return Timing.of(self.seconds[name])

    def ratio(self, name: str, to: str) -> Timing:
        """Time of `name` over time of `to`, paired by round."""
        return Timing.of(self.seconds[name] / self.seconds[to])


def compare(
    functions: Mapping[str, Callable[[], object]],
    *,
    sample_s: float = 0.05,
    budget_s: float = 8.0,
    rounds: tuple[int, int] = (7, 41),
    patience_s: float | None = None,
) -> Comparison:
    """Time callables in turns.

    Parameters
    ----------
    functions : each must return only when its work is done.
    sample_s : shortest sample; quick calls are repeated to fill it.
    budget_s : time for all rounds together on a quiet machine; the number of those that count stays within `rounds`.
    patience_s : time after which no more quiet rounds are waited for; PATIENCE_S if not given.
    """
    patience_s = max(budget_s, PATIENCE_S if patience_s is None else patience_s)
    first_call, calls = {}, {}
    for name, function in functions.items():
        first_call[name] = _sample(function, 1)
        warm = min(_sample(function, 1) for _ in range(2))
        calls[name] = max(1, round(sample_s / warm))
    names = list(functions)
    start, least, most = time.perf_counter(), *rounds
    samples, foreign = [], []
    while True:
        n_quiet = sum(not share > QUIET for share in foreign)
        spent = time.perf_counter() - start
        if n_quiet >= most or (n_quiet >= least and spent > budget_s):
            break
        if len(samples) >= least and spent > patience_s:
            break
        turn = len(samples) % len(names)
        before = processor_time()
        found = {name: _sample(functions[name], calls[name]) for name in names[turn:] + names[:turn]}
        foreign.append(foreign_share(before, processor_time()))
        samples.append([found[name] for name in names])
    shares, table = np.array(foreign), np.array(samples)
    quiet = ~(shares > QUIET)
    kept = quiet if quiet.sum() >= least else np.ones_like(quiet)
    seconds = {name: table[kept, column] for column, name in enumerate(names)}
    return Comparison(seconds, first_call, float(np.median(shares[kept])))


def processor_time() -> tuple[float, float, float]:
    """Clock, processor time of this process and its ended children, and time that processors were not idle, seconds.

    The last one counts what other guests of the host stole; it is NaN where the system does not tell.
    """
    clock, own = time.perf_counter(), sum(os.times()[:4])
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return clock, own, float("nan")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return clock, own, busy


def foreign_share(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Part of all processors that others used between two readings."""
    wall, own, busy = (b - a for a, b in zip(before, after))
    return max(0.0, busy - own) / (wall * (os.cpu_count() or 1)) if busy == busy else float("nan")


def _sample(function: Callable[[], object], n_calls: int) -> float:
    """Seconds per call, without the garbage collector, the threads of whoever came before, and the time to wake up."""
    gc.collect()
    gc.disable()
    time.sleep(PAUSE_S)
    try:
        for _ in range(n_calls // 2):
            function()
        start = time.perf_counter()
        for _ in range(n_calls):
            function()
        return (time.perf_counter() - start) / n_calls
    finally:
        gc.enable()


def in_child(
    module: str, function: str, arguments: Mapping | None = None, env: Mapping[str, str] | None = None
) -> dict:
    """Call module.function(**arguments) in a fresh process; what it returns must be a dict that JSON can hold.

    Returns
    -------
    That dict and `wall_s`, from the start of the process to its end.

    Raises
    ------
    RuntimeError : the process failed; the end of its error output is in the message.
    """
    code = (
        "import importlib, json, sys; "
        "result = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(**json.loads(sys.argv[3])); "
        "print(json.dumps(result))"
    )
    command = [sys.executable, "-c", code, module, function, json.dumps(dict(arguments or {}))]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{module}.{function} ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"wall_s": wall}


def peak_memory() -> float:
    """Largest resident memory of this process so far, bytes.

    Read from the process's own memory map: `ru_maxrss` would start from what the parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)
