"""`workflow.json`: the finished steps, each with a hash of its configuration and of the files that it reads."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json
from gmcore.running.interruption import AGAIN, EndedEarly
from gmcore.workflow.steps import Step

RECORD = "workflow.json"


class WorkflowError(GMError):
    """A step of a workflow has failed."""


class _Finished(BaseModel):
    """A finished step.

    Attributes
    ----------
    fingerprint : of the step when it was done.
    seconds : duration of the call that finished it.
    code : exit code, 0 or one of the step's outcomes.
    """

    fingerprint: str
    seconds: float = 0.0
    code: int = 0


class Record:
    """The finished steps of a workflow.

    Parameters
    ----------
    folder : output of the workflow.

    Raises
    ------
    WorkflowError : the file of an earlier call is damaged.
    """

    def __init__(self, folder: Path):
        self._path = folder / RECORD
        self._done: dict[str, _Finished] = {}
        if self._path.is_file():
            advice = "remove it, and all steps are done again"
            known = read_json(self._path, dict[str, _Finished | str], WorkflowError, advice)
            # earlier versions wrote the fingerprints alone
            self._done = {k: _Finished(fingerprint=v) if isinstance(v, str) else v for k, v in known.items()}

    def is_finished(self, step: Step) -> bool:
        """Whether a step was done with the same settings and files, and its own files are there."""
        known = self._done.get(step.name)
        if known is None or known.fingerprint != step.fingerprint():
            return False
        return known.code in step.outcomes or all(path.is_file() for path in step.makes)

    def execute(self, step: Step, run: Callable[[tuple[str, ...]], int], place: str) -> None:
        """Do a step and record it.

        Parameters
        ----------
        run : does it, given the arguments of `gmtensor`; returns the exit code.
        place : of the step in the workflow, for messages.

        Raises
        ------
        WorkflowError : it has failed.
        EndedEarly : it has ended early, and goes on when it is done again.
        """
        start = time.monotonic()
        code = run(step.arguments)
        if code == AGAIN:
            raise EndedEarly(f"gmtensor {step.name} has ended early")
        if code != 0 and code not in step.outcomes:
            raise WorkflowError(
                f"step {place}, gmtensor {step.name}, failed with exit code {code}: "
                "fix the problem and run the same command again; it resumes at this step"
            )
        self.add(step, time.monotonic() - start, code)

    def add(self, step: Step, seconds: float, code: int = 0) -> None:
        """Record a step that has just finished.

        Parameters
        ----------
        seconds : duration of the call that finished it, s.
        code : exit code, 0 or one of the step's outcomes.
        """
        self._done[step.name] = _Finished(fingerprint=step.fingerprint(), seconds=round(seconds, 1), code=code)
        content = {name: finished.model_dump() for name, finished in self._done.items()}
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def code(self, step: Step) -> int:
        """Exit code of a finished step."""
        return self._done[step.name].code

    def seconds(self, step: Step) -> float:
        """Duration of the call that finished a step, s."""
        return self._done[step.name].seconds
