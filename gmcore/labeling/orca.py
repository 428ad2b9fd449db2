"""D tensors from ORCA: inputs are written from a template, and outputs are read wherever they were computed.

Each frame has a folder `orca/KEY` in the work folder, with the input `frame.inp`. ORCA is run there, or on another
machine and the output copied back; every file that ends in .out or .log and has ORCA's banner is taken for the output.
Its geometry must be that of the frame. KEY is a hash of the input, so that another template has other folders.

ORCA itself is never started.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gmcore.config.labeling import LabelConfig, Orca
from gmcore.errors import shortened
from gmcore.exchange.tensor_files import ORCA_BANNER, in_frame_of, read_tensors
from gmcore.files import atomic_path
from gmcore.labeling.methods import FrameJob, LabelError, Labels, Missing, Refused

if TYPE_CHECKING:
    from ase import Atoms

NORMAL = "ORCA TERMINATED NORMALLY"
FAILED = ("ORCA finished by error termination", "aborting the run", "ORCA TERMINATED ABNORMALLY")
INPUT = "frame.inp"


class OrcaMethod:
    """Inputs from a template, and the outputs that belong to them.

    Parameters
    ----------
    config : with the section `orca`.
    folder : the work folder (absolute).
    """

    needs_charge = True
    retries = True

    def __init__(self, config: LabelConfig, folder: Path):
        if config.orca is None:
            raise LabelError("method orca needs a section 'orca'")
        self._settings: Orca = config.orca
        self._folder = folder / "orca"
        self._template = ""

    def check(self) -> None:
        """Read the template.

        Raises
        ------
        LabelError : it cannot be read, or has no place for the geometry, charge or multiplicity.
        """
        path = self._settings.template
        try:
            self._template = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise LabelError(f"the template {path} cannot be read: {shortened(str(error))}") from error
        for name in ("{coordinates}", "{charge}", "{multiplicity}"):
            if name not in self._template:
                raise LabelError(f"the template {path} must have {name} where each frame has its own")

    def identity(self) -> str:
        """Template, and which of the tensors of an output is taken."""
        return json.dumps([self._template, self._settings.level, self._settings.contribution])

    def label(self, atoms: Atoms, job: FrameJob) -> Labels:
        """Read the output of a frame, or write its input.

        Raises
        ------
        Missing : there is no output yet, or ORCA has not finished it.
        Refused : ORCA failed, there are several outputs, or charge and multiplicity are not those of the frame.
        DataError : the output has no D tensor, several, or another geometry.
        """
        if job.total_charge is None or job.multiplicity is None:
            raise Refused("total charge and multiplicity must be known")
        if job.total_charge != int(job.total_charge):
            raise Refused(f"the total charge must be a whole number, got {job.total_charge:g}")
        lines = (
            f"{symbol:2s} {x:16.10f} {y:16.10f} {z:16.10f}" for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions)
        )
        text = (
            self._template.replace("{charge}", str(int(job.total_charge)))
            .replace("{multiplicity}", str(job.multiplicity))
            .replace("{coordinates}", "\n".join(lines))
        )
        folder = self._folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not (folder / INPUT).is_file():
            with atomic_path(folder / INPUT) as temporary:
                temporary.write_text(text, encoding="utf-8")
        path = _output(folder)
        found = read_tensors(path, "orca", level=self._settings.level, contribution=self._settings.contribution)
        if len(found) != 1:
            raise Refused(f"{path} must have one geometry with a D tensor, got {len(found)}")
        tensor = in_frame_of(found[0], atoms)
        spin = (job.multiplicity - 1) / 2.0
        if tensor.charge not in (None, job.total_charge) or tensor.spin not in (None, spin):
            raise Refused(f"{path} must have the charge {job.total_charge:g} and the multiplicity {job.multiplicity}")
        return Labels({"d_tensor": tensor.tensor})

    def close(self) -> None:
        """Nothing is running."""


def _output(folder: Path) -> Path:
    """Return the finished output in a folder."""
    outputs = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".out", ".log") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if ORCA_BANNER in text:
                outputs[path] = text
    if len(outputs) > 1:
        names = ", ".join(path.name for path in outputs)
        raise Refused(f"{folder} must have one output of ORCA, got {names}: remove all but one")
    for path, text in outputs.items():
        if any(words in text for words in FAILED):
            raise Refused(f"ORCA failed: see the end of {path}")
        if NORMAL in text:
            return path
        raise Missing(f"{path} is not finished")
    raise Missing(f"run ORCA with {folder / INPUT}")
