"""The public descriptor: Gaussian-moment features of structures.

Formulas: docs/method.md, sections 1, 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments, make_geometry
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.errors import GMError, excerpt

DEVICES = ("cpu", "cuda")


def check_device(device: str) -> None:
    """Refuse what this version cannot compute on."""
    if device not in DEVICES:
        raise GMError(f"device must be one of {', '.join(DEVICES)}, got {excerpt(device)}")


def _atomic_number(species: int | str) -> int:
    if isinstance(species, str):
        if species not in atomic_numbers:
            raise GMError(f"{excerpt(species)} is not a chemical symbol")
        return atomic_numbers[species]
    return species


class GaussianMoments:
    """Gaussian-moment descriptor: rotation-, reflection-, translation- and permutation-invariant features of atoms.

    Parameters
    ----------
    species : atomic numbers or symbols that may occur.
    r_max, r_min : cutoff radius and center of the first Gaussian, A.
    n_basis, n_radial : Gaussians N_b and radial functions N_r (1 to 8).
    coefficients : beta (n_species, n_species, n_radial, n_basis), ordered pair (center, neighbor), species in ascending
        atomic number; without them they are drawn uniformly from (-1, 1) with a fixed seed.
    dtype : "float32" or "float64".
    device : "cpu" or "cuda".

    Raises
    ------
    GMError : a parameter is out of range or has the wrong shape.

    Examples
    --------
    >>> from ase.build import molecule
    >>> descriptor = GaussianMoments(["H", "O"], r_max=5.0)
    >>> descriptor.features(molecule("H2O")).shape
    (3, 360)
    """

    def __init__(
        self, species, r_max, r_min=0.5, n_basis=7, n_radial=5, coefficients=None, dtype="float32", device="cpu"
    ):
        check_device(device)
        self.species = SpeciesTable(_atomic_number(z) for z in species)
        self.settings = DescriptorSettings(self.species.numbers, float(r_max), float(r_min), n_basis, n_radial)
        self._moments = Moments(self.settings, dtype)
        self._contractions = Contractions(n_radial, dtype)
        if coefficients is None:
            coefficients = np.random.default_rng(0).uniform(-1.0, 1.0, self._moments.beta_shape)
        if np.shape(coefficients) != self._moments.beta_shape:
            raise GMError(f"coefficients must have shape {self._moments.beta_shape}, got {np.shape(coefficients)}")
        self.coefficients = np.array(coefficients, self._moments.dtype)
        if not np.isfinite(self.coefficients).all():
            raise GMError(f"coefficients must be finite numbers in {dtype}, got some that are not")
        self._on_device = None
        if device == "cuda":
            from gmcore.device.cuda import open_device

            opened = open_device()  # before the kernels are imported, which need what this one asks for
            from gmcore.engine.descriptor_cuda import DeviceFeatures

            self._on_device = DeviceFeatures(opened, self.settings, dtype, self.coefficients)

    @property
    def n_features(self) -> int:
        """Number of features per atom: 94, 360, 910 for n_radial = 3, 5, 7."""
        return self._contractions.n_features

    def features(self, atoms: Atoms | Sequence[Atoms]) -> np.ndarray:
        """Features of every atom, structures one after another: (n_atoms, n_features)."""
        batch = Batch.from_atoms(atoms)
        if self._on_device is not None:
            return self._on_device(batch)
        geometry = make_geometry(batch, batch.species(self.species), build_pairs(batch, self.settings.r_max))
        return self._contractions.forward(self._moments.forward(geometry, batch.positions, self.coefficients))
