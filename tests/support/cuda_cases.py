"""Cases in which the CUDA kernels are compared with the CPU, in the simulator and on a card."""

from __future__ import annotations

from support.tolerances import TOLERANCE

CASES = [
    {"system": "mixed", "dtype": "float64", "cutoff": 4.2, "n_radial": 3, "n_basis": 4},
    {"system": "mixed", "dtype": "float32", "cutoff": 4.2, "n_radial": 3, "n_basis": 4},
    {"system": "small_cell", "dtype": "float64", "cutoff": 4.2, "n_radial": 5, "n_basis": 9, "skin": 0.5},
    {"system": "self_images_only", "dtype": "float32", "cutoff": 4.2, "n_radial": 8, "n_basis": 7},
    {"system": "water_molecule", "dtype": "float64", "cutoff": 4.2, "n_radial": 1, "n_basis": 1},
    {"system": "molecule", "dtype": "float32", "cutoff": 3.0, "n_radial": 5, "n_basis": 3},
]
ORDER = {"backward": "gradient", "double_backward": "second"}


def tolerance(result: str, dtype: str) -> float:
    """Of a result named "stage order: quantity"."""
    order = result.split(":")[0].split()[-1]
    return TOLERANCE[ORDER.get(order, "value"), dtype]
