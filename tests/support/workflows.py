"""Configurations of two trainings for tests of workflows; nothing but their text is used."""

from __future__ import annotations

from pathlib import Path

POTENTIAL = (
    "output: potential\ndata: {files: [e.xyz], units: {length: A, energy: eV, forces: eV/A}, "
    "split: {train: 8, validation: 2}}\nproperties: {energy: }\n"
)
D_TENSOR = (
    "output: d\ndata: {files: [d.xyz], units: {length: A, d_tensor: cm^-1}, split: {train: 8, validation: 2}}\n"
    "properties: {d_tensor: }\n"
)


def write_trainings(folder: Path) -> None:
    """Write potential.yaml and d.yaml, whose models are potential/model.h5 and d/model.h5."""
    (folder / "potential.yaml").write_text(POTENTIAL)
    (folder / "d.yaml").write_text(D_TENSOR)
