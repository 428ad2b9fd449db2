"""The ML-IAP unified interface of LAMMPS: `pair_style mliap unified`.

LAMMPS hands over the neighbors of each atom as vectors and takes back energies of atoms and a derivative for each pair,

    rij = r_j - r_i,    fij = dE/drij = dE_i/drij,    f_i += fij,    f_j -= fij,    virial -= rij fij^T

so that ghosts need nothing but what `newton on` brings. Arrays are those of NumPy; with the KOKKOS variant on a GPU
they are those of CuPy, and the model is evaluated on the GPU without a copy to the host.

    element types : the elements of the model, in the order of their atomic numbers; `pair_coeff * * H O` maps the types
    cutoff        : LAMMPS takes two element radii of 1 times `rcutfac`, so rcutfac is half the cutoff

The file that LAMMPS reads is a pickle with the path of the model file; it imports this module when it is read.

Not supported: deviations and grades, for which the interface has no place (`gmcore.engines.lammps` has them).

Source: LAMMPS documentation, "pair_style mliap"; the interface is `lammps.mliap.mliap_unified_abc.MLIAPUnified`, which
is not imported here, because that needs a shared Python library.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from gmcore.engines import EngineError
from gmcore.files import atomic_path
from gmcore.model import Model, load_model


class UnifiedPotential:
    """A model as LAMMPS' ML-IAP package wants it; a committee uses its mean.

    Parameters
    ----------
    model : model file with an energy.
    dtype : "float32" or "float64"; that of the training if not given.
    device : "cpu", or "cuda" for the KOKKOS variant on a GPU.

    Attributes
    ----------
    element_types : symbols of the elements, for `pair_coeff`.
    interface, ndescriptors, nparams, rcutfac : read and written by LAMMPS.

    Raises
    ------
    ModelFileError : the model cannot be read.
    EngineError : the model predicts no energy.

    Examples
    --------
    >>> UnifiedPotential("model.h5").write("model.mliap")  # doctest: +SKIP
    """

    def __init__(self, model: str | os.PathLike, dtype: str | None = None, device: str = "cpu"):
        self.path, self.dtype, self.device = str(Path(model).resolve()), dtype, device
        self._model: Model = load_model(model, dtype, device)
        if "energy" not in self._model.units:
            raise EngineError(
                f"the model for LAMMPS must predict an energy, got a model of {', '.join(self._model.units)}"
            )
        self.interface: Any = None
        self.element_types = [chemical_symbols[number] for number in self._model.species.numbers]
        self.ndescriptors = self.nparams = 1  # LAMMPS wants numbers, but does not use them
        self.rcutfac = 0.5 * self._model.cutoff

    def __reduce__(self) -> tuple:
        """Pickle what the model is read from."""
        return UnifiedPotential, (self.path, self.dtype, self.device)

    def write(self, path: str | os.PathLike) -> None:
        """Write the file for `pair_style mliap unified FILE`; the model file must stay where it is.

        Raises
        ------
        WriteError : the file cannot be written.
        """
        with atomic_path(path) as part:
            part.write_bytes(pickle.dumps(self))

    def compute_descriptors(self, data: Any) -> None:
        """Do nothing: everything is in `compute_forces`."""

    def compute_gradients(self, data: Any) -> None:
        """Do nothing: everything is in `compute_forces`."""

    def compute_forces(self, data: Any) -> None:
        """Give LAMMPS energies and pair forces.

        Parameters
        ----------
        data : LAMMPS' `MLIAPDataPy`.

        Raises
        ------
        EngineError : arrays of a GPU for a model on the CPU, or the other way around.
        """
        n_centers, n_pairs = int(data.nlistatoms), int(data.npairs)
        if n_centers == 0:
            data.energy = 0.0
            return
        evaluator: Any = self._model.evaluator
        if n_pairs == 0:
            xp = self._array_module(data.iatoms)
            pair_i, jelems, rij = xp.zeros(0, np.int32), xp.zeros(0, np.int32), xp.zeros((0, 3))
        else:
            xp = self._array_module(data.rij)
            pair_i, jelems, rij = data.pair_i, data.jelems, data.rij
        centers = data.iatoms[:n_centers]
        place = xp.zeros(int(data.ntotal), np.int32)
        place[centers] = xp.arange(n_centers, dtype=np.int32)
        row = place[pair_i]
        order = None if bool((row[1:] >= row[:-1]).all()) else xp.argsort(row, kind="stable")
        if order is not None:
            row, jelems, rij = row[order], jelems[order], rij[order]
        row_start = xp.zeros(n_centers + 1, np.int64)
        row_start[1:] = xp.cumsum(xp.bincount(row, minlength=n_centers))
        species = data.ielems[:n_centers].astype(np.int32)
        energies, gradients = evaluator.evaluate_vectors(species, row_start, jelems.astype(np.int32), rij)
        if order is not None:
            back = xp.empty_like(gradients)
            back[order] = gradients
            gradients = back
        gradients = xp.ascontiguousarray(gradients)
        data.energy = float(energies.sum())
        _set_atom_energies(data, energies)
        if self.device == "cuda":
            evaluator.device.synchronize()
        if n_pairs:
            data.update_pair_forces(gradients)

    def _array_module(self, array: Any) -> Any:
        """NumPy or CuPy, whichever the model and LAMMPS both use."""
        if self.device == "cuda":
            evaluator: Any = self._model.evaluator
            device = evaluator.device
            if device.is_device_array(array):
                return device.xp
        elif isinstance(array, np.ndarray):
            return np
        given = "NumPy" if isinstance(array, np.ndarray) else "a GPU"
        raise EngineError(
            f"LAMMPS gives arrays of {given}, but the model is on the device {self.device}: use device='cuda' with "
            "'-k on g 1 -sf kk' and device='cpu' without"
        )


def _set_atom_energies(data: Any, energies: Any) -> None:
    """Energies of atoms: the property can only be written on the CPU, and only be read with KOKKOS."""
    try:
        known = data.eatoms
    except AttributeError:
        data.eatoms = energies
    else:
        known[...] = energies
