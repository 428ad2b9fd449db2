"""Exact thermal averages of D and E of a finished run, beside those of its model.

    python exact.py RUN

The ligand-field model that made the D tensors of this example gives D of any geometry. This script computes D of every
frame that the analysis of RUN has averaged over, and compares: the frames are the same, so that the sampling error is
in both averages and the whole difference is the error of the learned D tensor. It needs RUN/trajectory.h5 and
RUN/analysis.json, which `gmtensor run workflow.yaml` leaves in runs/co_pdms_md, and takes about ten seconds.

The exit code is 1 if D of a temperature is more than two of its total errors (sampling and model together) away from
the exact value.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ligand_field import d_tensor

from gmcore import zfs_parameters
from gmcore.analysis.samples import Samples, State
from gmcore.dynamics.trajectory import Trajectory

QUANTITIES = ("D", "D_width", "E", "E_width")
ALLOWED = 2.0
"""Total errors by which D may differ."""


@dataclass(frozen=True)
class Comparison:
    """One thermal average, cm^-1.

    Attributes
    ----------
    temperature : K.
    quantity : one of QUANTITIES.
    exact : of the ligand-field model, on the frames of the run.
    model : of the run's analysis, on the same frames.
    error : its total error, or that of sampling alone if the analysis gives no other.
    """

    temperature: float
    quantity: str
    exact: float
    model: float
    error: float

    @property
    def apart(self) -> float:
        """Difference in units of the error."""
        return (self.model - self.exact) / self.error


def compare(run: str | Path) -> list[Comparison]:
    """Compare the averages of a run with the exact ones of its own frames, temperature by temperature.

    Raises
    ------
    OSError : the run has no analysis.
    TrajectoryError : the run has no trajectory.
    ValueError : the ligand-field model does not apply to a frame; or the unit of the analysis is not cm^-1.
    """
    run = Path(run)
    analysis = json.loads((run / "analysis.json").read_text(encoding="utf-8"))
    if analysis["unit"] != "cm^-1":
        raise ValueError(f"{run / 'analysis.json'} must be in cm^-1, got {analysis['unit']}: remove analysis.unit")
    trajectory = Trajectory(run)
    discard = 1000.0 * analysis["run"]["discarded"]["value"]
    found = []
    for content in analysis["states"]:
        state = State(content["label"], content["target"]["value"], tuple(content["replicas"]))
        samples = Samples(trajectory, state, discard, analysis["settings"]["blocks"])
        frames = samples.pooled(samples.molecules("molecule_position"))
        zfs = zfs_parameters(np.array([d_tensor(trajectory.molecule_numbers, frame) for frame in frames]))
        exact = {"D": zfs.d.mean(), "D_width": zfs.d.std(), "E": zfs.e.mean(), "E_width": zfs.e.std()}
        for quantity in QUANTITIES:
            average = content["anisotropy"][quantity]
            error = average.get("total", average["error"])
            found.append(Comparison(state.target, quantity, float(exact[quantity]), average["value"], error))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run, for example ../../runs/co_pdms_md")
    found = compare(parser.parse_args().run)
    print(f"{'T / K':>6} {'quantity':>8} {'exact':>8} {'model':>8} {'error':>6} {'apart':>6}    (cm^-1)")
    for row in found:
        numbers = f"{row.exact:8.2f} {row.model:8.2f} {row.error:6.2f} {row.apart:6.1f}"
        print(f"{row.temperature:6g} {row.quantity:>8} {numbers}")
    if any(abs(row.apart) > ALLOWED for row in found if row.quantity == "D"):
        raise SystemExit(f"D must be within {ALLOWED:g} of its errors of the exact value")


if __name__ == "__main__":
    main()
