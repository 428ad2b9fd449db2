"""Facts of a run for the report: system, ensemble, replicas, lengths and intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.analysis.records import quantity
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config
from gmcore.dynamics.trajectory import Trajectory

CONFIG_FILE = "config.yaml"


def run_config(run: Path) -> MDConfig | None:
    """Return the configuration of a run, None for a trajectory without one."""
    path = run / CONFIG_FILE
    return load_config(path, MDConfig) if path.is_file() else None


def run_facts(run: Path, trajectory: Trajectory, config: MDConfig | None, discard: float) -> dict[str, Any]:
    """Return the facts of a run; `discard` in fs."""
    times = {name: trajectory.times(name) for name in trajectory.names()}
    recorded = {
        name: {
            "samples": len(t),
            "interval": quantity(np.diff(t).mean() if len(t) > 1 else np.nan, "fs", f"time between samples of {name}"),
        }
        for name, t in times.items()
    }
    molecule, n_molecules = None, 0
    if trajectory.molecules is not None:
        molecule, n_molecules = _formula(trajectory.molecule_numbers), len(trajectory.molecules)
    settings = None
    if config is not None:
        context = {"relative_to": run}
        settings = config.model_dump(mode="json", exclude_none=True, exclude={"analysis"}, context=context)
    return {
        "folder": run.resolve().name,
        "formula": _formula(trajectory.numbers),
        "molecule": molecule,
        "n_molecules": n_molecules,
        "n_atoms": trajectory.n_atoms,
        "periodic": bool(trajectory.pbc.any()),
        "ensemble": trajectory.ensemble,
        "time_step": quantity(trajectory.time_step, "fs", "time step"),
        "n_replicas": trajectory.n_replicas,
        "seeds": trajectory.seeds,
        "duration": quantity(max(t[-1] for t in times.values()) / 1000.0, "ps", "length of each replica"),
        "discarded": quantity(discard / 1000.0, "ps", "left out at the beginning of each replica"),
        "recorded": recorded,
        "config": settings,
    }


def _formula(numbers: np.ndarray) -> str:
    return Atoms(numbers=numbers).get_chemical_formula("hill")
