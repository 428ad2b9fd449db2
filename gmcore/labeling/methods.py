"""What a reference method is: a check before the first frame, a name for its settings, and the labels of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gmcore.errors import GMError

if TYPE_CHECKING:
    from ase import Atoms


class LabelError(GMError):
    """No frame can be labeled: a program is missing, or the settings do not fit."""


class Refused(GMError):
    """One frame cannot be labeled; the others are not affected."""


class Missing(GMError):
    """The result of a frame is not there yet: it is computed elsewhere."""


@dataclass(frozen=True)
class Labels:
    """The result of one frame.

    Attributes
    ----------
    values : quantity -> number or array in the unit of `gmcore.quantities` (d_tensor cm^-1, energy eV, forces eV/A).
        A D tensor may have a trace; shapes and finiteness are checked by the caller.
    extras : further numbers or texts for the frame's line in the output, by name: "d_weight", "gap".
    files : name -> file in the folder of the frame that is kept for later frames: {"rasscf.h5": path}.
    """

    values: Mapping[str, Any]
    extras: Mapping[str, float | str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


class FrameJob(Protocol):
    """One frame that is being labeled, in one of several threads.

    Attributes
    ----------
    key : name of the frame and its settings, 32 hexadecimal digits.
    folder : an empty folder of its own (absolute); kept where the frame is refused, else removed.
    time_limit : s, from now for the whole frame.
    threads : for OMP_NUM_THREADS; `run` sets it.
    total_charge : e; None where it is not known, never for a method with `needs_charge`.
    multiplicity : 2S + 1; as the charge.
    """

    key: str
    folder: Path
    time_limit: float
    threads: int
    total_charge: float | None
    multiplicity: int | None

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None, log: str = "log.txt") -> int:
        """Run a program in the folder with its output in the file `log`, and return its exit code.

        The program and all its children are killed at the time limit of the frame, when labeling is interrupted, and
        when this process is killed.

        Parameters
        ----------
        environment : variables to set besides those of this process.

        Raises
        ------
        Refused : the time limit was reached.
        """
        ...

    def nearest(self, name: str) -> Path | None:
        """Return the file `name` kept by the nearest frame labeled with the same settings, atoms, charge and spin.

        Nearest by the root mean square distance of the atoms without rotation; None where there is none. The file must
        not be changed.
        """
        ...


class Method(Protocol):
    """A reference method; made from its configuration by `gmcore.labeling.labeling.method_of`.

    Attributes
    ----------
    needs_charge : whether total charge and multiplicity of every frame must be known.
    retries : whether a refused frame is tried again by every later call, because that costs nothing.
    """

    needs_charge: bool
    retries: bool

    def check(self) -> None:
        """Check, before the first frame, what can be checked.

        Raises
        ------
        LabelError : something is missing; one sentence that says how to get it.
        """
        ...

    def identity(self) -> str:
        """Return everything that decides about the labels, as text: settings and versions; called after `check`."""
        ...

    def label(self, atoms: Atoms, job: FrameJob) -> Labels:
        """Label a frame; called from several threads at once.

        Parameters
        ----------
        atoms : positions in A, numbers, cell and pbc; nothing else.

        Raises
        ------
        GMError : the frame is refused, whatever the class (`Refused`, DataError of a reader, ...).
        Missing : the result is not there yet.
        """
        ...

    def close(self) -> None:
        """End what is still running for later frames; called at the end of everything."""
        ...
