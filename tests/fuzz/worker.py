"""A process that reads one damaged file after another: `python -m fuzz.worker TABLE SAMPLES SCRATCH CPU KIND...`.

It takes lines "KIND SEED" and answers each with two lines of JSON, {"mutation"} before it reads and {"outcome"} after.
Memory may grow by 1 GB over what reading the samples needs; a file that takes more processor time than CPU seconds ends
the process (SIGPROF). Processor time, not the clock, so that a busy machine finds nothing by itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from pathlib import Path

GIGABYTE = 1 << 30
SENTENCE = 1000
"""Characters that a message may have; values in it are cut, and a few paths fit."""


def main(table: str, samples: str, scratch: str, cpu: str, *names: str) -> None:
    """Answer the requests on the standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what readers print does not mix with the answers
    faulthandler.enable()
    warnings.simplefilter("ignore")  # NumPy on overflows
    from fuzz.mutations import mutated

    kinds = importlib.import_module(table).KINDS
    originals, here = Path(samples), Path(scratch)
    for name in names:
        if (originals / name).is_dir():
            shutil.copytree(originals / name, here / name)
    for name in ("inputs", "training-folder"):  # what some samples point at
        if (originals / name).is_dir() and not (here / name).exists():
            shutil.copytree(originals / name, here / name)
    for name in names:
        kinds[name].read(here / name)  # a sample that is not damaged is read without complaint
    _limit_memory()

    def answer(**content: object) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer(ready=True)
    for line in sys.stdin:
        name, seed = line.split()
        kind = kinds[name]
        target = here / name / kind.file
        words = mutated(originals / name / kind.file, name, kind.structure, int(seed), target)
        answer(mutation=words)
        signal.setitimer(signal.ITIMER_PROF, float(cpu))
        before = _children()
        outcome = read(kind, here / name)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        used, memory = (now - then for now, then in zip(_children(), before))
        if used > float(cpu):
            outcome = {"found": "hang", "detail": f"child processes took {used:.1f} s of processor time"}
        elif memory > GIGABYTE:
            outcome = {"found": "growth", "detail": f"a child process took {memory / GIGABYTE:.1f} GB"}
        answer(outcome=outcome)


def read(kind, folder: Path) -> dict[str, str]:
    """Return what reading did: {} if the file was read or refused in a sentence, else what was found."""
    from gmcore.errors import GMError

    try:
        kind.read(folder)
    except (GMError, OSError) as error:
        if _in_chain(error, MemoryError):
            return {"found": "growth", "detail": _where(error)}
        text = str(error)
        wrong = "no message" if not text.strip() else "several lines" if len(text.splitlines()) != 1 else ""
        wrong = wrong or ("too long" if len(text) > SENTENCE else "")
        return {"found": f"not one sentence: {wrong}", "detail": _where(error)} if wrong else {}
    except MemoryError as error:
        return {"found": "growth", "detail": _where(error)}
    except BaseException as error:
        return {"found": type(error).__name__, "detail": _where(error)}
    return {}


def _in_chain(error: BaseException | None, kind: type[BaseException]) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _where(error: BaseException) -> str:
    """The last place in the program and the message."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/gmcore/" in frame.filename or "/kernels/" in frame.filename] or frames[-1:]
    if os.environ.get("FUZZ_TRACEBACK"):
        traceback.print_exception(error)
    place = Path(ours[-1].filename)
    try:
        text = str(error)
    except Exception:  # an error whose own text fails
        text = "(no text)"
    text = " ".join(text.split())
    return f"{place.parent.name}/{place.name}:{ours[-1].lineno} {ours[-1].name}: {text[:160]}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _children() -> tuple[float, int]:
    """Processor time, s, and largest memory, bytes, of child processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
