"""`rounds.json`: what each round of a workflow did to the models, and how the last ones compare with the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json

ROUNDS_FILE = "rounds.json"


class RoundsError(GMError):
    """A file of rounds that cannot be read."""


class ModelInRound(BaseModel):
    """A model that the rounds improve, after one of them.

    Attributes
    ----------
    name : of its training.
    quantity : "d_tensor" or "forces".
    n_structures : number of structures that it was trained on.
    n_chosen, n_labeled : frames that were chosen from the run before and labeled for it; None in round 0.
    test_rmse : of D, cm^-1, or of the force components, eV/A, for the test part; None without one.
    error : calibrated error along the run, at the temperature where it is largest: of <D>, cm^-1, or of a force
        component, eV/A; None if the run was stopped, or if its models do not know their errors.
    outside : share of the frames of the run that are outside the training data.
    target : error to reach; None if there is none.
    """

    name: str
    quantity: Literal["d_tensor", "forces"]
    n_structures: int
    n_chosen: int | None = None
    n_labeled: int | None = None
    test_rmse: float | None = None
    error: float | None = None
    outside: float | None = None
    target: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the error is below the target."""
        return self.target is not None and self.error is not None and self.error <= self.target


class Round(BaseModel):
    """One round: training, dynamics, and before them the choice and the labels of frames.

    Attributes
    ----------
    number : 0 for the workflow's own trainings and dynamics.
    stopped : whether a stop condition ended the dynamics.
    models : those that are improved.
    seconds : duration by command.
    """

    number: int
    stopped: bool
    models: list[ModelInRound]
    seconds: dict[str, float]


class Check(BaseModel):
    """Random frames of the last run, labeled by the reference method.

    Attributes
    ----------
    name : of the training.
    quantity : "d_tensor" or "forces".
    method : the reference method.
    reference, predicted, error : D of each frame, cm^-1; empty for forces.
    rmse : of all values.
    within : share of the values whose deviation is below one and two errors.
    """

    name: str
    quantity: Literal["d_tensor", "forces"]
    method: str
    reference: list[float]
    predicted: list[float]
    error: list[float]
    rmse: float
    within: list[float]


class RoundsResult(BaseModel):
    """All rounds of a workflow, and why there were no more."""

    format: Literal["gmtensor-rounds"] = "gmtensor-rounds"
    ended: str = ""
    rounds: list[Round] = []
    checks: list[Check] = []

    def write(self, path: Path) -> None:
        """Write the file.

        Raises
        ------
        WriteError : the disk is full or the folder cannot be written to.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_rounds(path: Path) -> RoundsResult:
    """Read a file of rounds.

    Raises
    ------
    RoundsError : it is not one, or it is damaged.
    """
    return read_json(path, RoundsResult, RoundsError, "run the workflow again with: gmtensor run")
