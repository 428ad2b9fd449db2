"""Presets of a training: the defaults that `training.preset` decides."""

from __future__ import annotations

from typing import Any

# Presets. The paper's rates: P, section 2.2.3, for D and for potentials. With standardized features the network needs
# smaller steps; docs/results.md compares the two presets.
_PAPER_TENSOR = {"network": 0.02, "radial": 0.02, "scale": 0.025, "shift": 0.025}
_PAPER_ENERGY = {"network": 0.03, "radial": 0.02, "scale": 0.001, "shift": 0.05}
_STANDARD_TENSOR = {"network": 0.02, "radial": 0.02, "scale": 0.005, "shift": 0.005}
_STANDARD_ENERGY = {"network": 0.03, "radial": 0.03, "scale": 0.001, "shift": 0.05}
_STANDARD: dict[str, Any] = {
    "descriptor": {"r_max": 5.0, "r_min": 0.5, "n_basis": 16, "n_radial": 8},
    "hidden": [128, 128],
    "initial_radial": "smooth",
    "standardize": True,
    "decorrelate": {True: False, False: True},  # the key says whether an energy is learned
    "initial_scale": "spread",
    "basis": "moments",  # of a D tensor
    "batch_size": 8,
    "optimizer": "muon",
    "learning_rates": {True: _STANDARD_ENERGY, False: _STANDARD_TENSOR},
}
PRESETS: dict[str, dict[str, Any]] = {
    "standard": _STANDARD,
    "fast": {**_STANDARD, "descriptor": {**_STANDARD["descriptor"], "n_radial": 5}, "hidden": [64, 64]},
    "paper": {
        "descriptor": {"r_max": 6.5, "r_min": 0.5, "n_basis": 7, "n_radial": 5},
        "hidden": [512, 512],
        "initial_radial": "uniform",
        "standardize": False,
        "decorrelate": {True: False, False: False},
        "initial_scale": "reference",
        "basis": "positions",
        "batch_size": 32,
        "optimizer": "adam",
        "learning_rates": {True: _PAPER_ENERGY, False: _PAPER_TENSOR},
    },
}
FINE_TUNING = {"network": 0.1, "radial": 0.1, "scale": 1.0, "shift": 1.0}
"""Default learning rates of a training that starts from a model, in units of those of the preset (docs/results.md)."""
