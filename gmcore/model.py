"""A trained model: from structures to energies, forces, charges and tensors, with the spread of the committee.

Prediction needs no TensorFlow. Of a committee the mean is returned under the name of the quantity and the population
standard deviation over the members, element by element, under the name with `_std` (P eq. 12); of a single model the
deviation over draws of its last layer. That is raw: members agree more closely with each other than with the truth.
The calibrated standard error is under the name with `_error`, see `gmcore.uncertainty.calibration`. How far a structure
is from the training data is under `extrapolation`: above 1 it lies outside (`gmcore.uncertainty.environments`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.engine.descriptor import check_device
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.evaluator_base import EvaluatorBase
from gmcore.engine.neighbors import NeighborError
from gmcore.engine.settings import Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError, excerpt
from gmcore.model_file import read_content, verify_golden
from gmcore.quantities import PER_ATOM_GRADE, is_per_atom
from gmcore.uncertainty.uncertainty import Uncertainty, component_axes


class Model:
    """A committee of one or more members; made by `load_model`, or from its parts.

    Parameters
    ----------
    settings, members : see `gmcore.engine.settings`.
    dtype : "float32" or "float64" for descriptor and network; that of the settings if not given.
    device : "cpu" or "cuda".
    matmul : on "cuda", "float32" or "tf32" (faster, 10 bits of mantissa in matrix products).

    Attributes
    ----------
    settings : ModelSettings
    species : SpeciesTable, the elements that the model knows.
    cutoff : float, A.
    units : dict, what the model predicts and in which unit.
    n_members : int
    uncertainty : Uncertainty, what the model file says about errors; without calibrations where it says nothing.
    """

    def __init__(
        self,
        settings: ModelSettings,
        members: Sequence[Member],
        dtype: str | None = None,
        device: str = "cpu",
        matmul: str = "float32",
        uncertainty: Uncertainty | None = None,
    ):
        self.uncertainty = uncertainty or Uncertainty()
        self.evaluator = _make_evaluator(settings, members, dtype, device, matmul)
        self.evaluator.environments = self.uncertainty.environments
        self._axes = component_axes(settings.heads)
        self.settings, self.species = settings, self.evaluator.species
        self.cutoff, self.units, self.n_members = self.evaluator.cutoff, self.evaluator.units, len(members)

    def predict(
        self,
        atoms: Atoms | Sequence[Atoms],
        properties: Iterable[str] | None = None,
        batch_size: int | None = None,
        total_charge: float | Sequence[float] | None = None,
        errors: bool | None = None,
    ) -> dict[str, np.ndarray | list[np.ndarray]]:
        """Predict for one structure or many.

        Parameters
        ----------
        properties : keys of `units` that are wanted; all of them if not given.
        batch_size : structures evaluated together; as many as have 8192 atoms (65536 on a GPU) if not given.
        total_charge : e, one number or one per structure, for models whose charges must sum to it; if not given,
            `atoms.info["total_charge"]` and then the constant of the training data.
        errors : True for errors and extrapolation grades of everything, False for none. If not given, those of forces
            and stress of a single model are left out, because they take several times as long as the forces.

        Returns
        -------
        dict with the keys asked for, in the units of `units`: energy (n_structures,); forces (n_structures, n_atoms, 3)
        and charges (n_structures, n_atoms), a list of arrays where the structures differ in size; stress (n_structures,
        3, 3), NaN for structures that are not periodic; dipole (n_structures, 3); tensors (n_structures, 3, 3).
        Each also with `_std`, the raw standard deviation over members or draws, in the same shape, and with `_error`,
        the calibrated standard error of each component, one number per structure, or per atom for forces and charges.
        extrapolation (n_structures,) and extrapolation_atoms (n_structures, n_atoms), no unit: grades, above 1 outside
        the training data. What the model file does not know is left out; so is everything but `_std` on a GPU.

        Raises
        ------
        UnknownElementError, StructureError, NeighborError : a structure cannot be used.
        GMError : a property is unknown, or `batch_size` or `total_charge` cannot be used.
        """
        frames = [atoms] if isinstance(atoms, Atoms) else list(atoms)
        keys, whole = self.evaluator.check_keys(properties), Batch.from_atoms(frames)
        if total_charge is None:
            total_charge = [frame.info.get("total_charge") for frame in frames]
        found = self._predict(whole, keys, total_charge, batch_size, errors)
        sizes = np.diff(whole.offsets)
        if (sizes == sizes[0]).all():
            shape = len(frames), sizes[0]
            return {key: v.reshape(*shape, *v.shape[1:]) if is_per_atom(key) else v for key, v in found.items()}
        return {key: np.split(v, whole.offsets[1:-1]) if is_per_atom(key) else v for key, v in found.items()}

    def predict_arrays(
        self,
        numbers: np.ndarray,
        positions: np.ndarray,
        cells: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
        *,
        properties: Iterable[str] | None = None,
        batch_size: int | None = None,
        total_charge: float | Sequence[float | None] | np.ndarray | None = None,
        errors: bool | None = None,
    ) -> dict[str, np.ndarray]:
        """Predict for structures that are laid end to end in arrays: the numbers of `predict`, without objects of ASE.

        Arrays of the types below are read where they are and not copied.

        Parameters
        ----------
        numbers : (n_atoms,) int32, atomic numbers.
        positions : (n_atoms, 3) float64, C-contiguous, A.
        cells : (n_structures, 3, 3) float64 or (3, 3) for all, A, rows are the cell vectors; none if not given.
        pbc : (n_structures, 3) bool or (3,) for all; not periodic if not given.
        offsets : (n_structures + 1,) int64, structure k has the atoms offsets[k] <= i < offsets[k + 1]; one structure
            if not given.
        properties, batch_size, errors : as for `predict`.
        total_charge : e, one number or one per structure; if not given, or None for a structure, the constant of the
            training data.

        Returns
        -------
        dict as of `predict`, but forces (n_atoms, 3), charges (n_atoms,) and whatever else there is of each atom run
        over the atoms of all structures.

        Raises
        ------
        UnknownElementError, StructureError, NeighborError : a structure cannot be used.
        GMError : a property is unknown, or `batch_size` or `total_charge` cannot be used.

        Examples
        --------
        >>> import numpy as np
        >>> from gmcore import load_model
        >>> model = load_model("runs/co_pdms_potential/model.h5")  # doctest: +SKIP
        >>> found = model.predict_arrays([8, 1, 1], [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]])  # doctest: +SKIP
        """
        keys = self.evaluator.check_keys(properties)
        whole = Batch.from_arrays(positions, numbers, cells, pbc, offsets)
        return self._predict(whole, keys, total_charge, batch_size, errors)

    def _predict(
        self, whole: Batch, keys: Sequence[str], total_charge: Any, batch_size: int | None, errors: bool | None
    ) -> dict[str, np.ndarray]:
        """Predict for structures that have been checked, batch by batch."""
        whole.species(self.species)  # refuses unknown elements before work is spent; the parts keep what is looked up
        charges = _total_charges(whole.n_structures, total_charge, self.settings)
        found: dict[str, np.ndarray] = {}
        for first, last in batches(whole.offsets, batch_size, self.evaluator.batch_atoms):
            batch = whole.part(first, last)
            try:
                pairs = self.evaluator.find_pairs(batch)
            except NeighborError as error:
                where = f" (structure 0 here is number {first} of the input)" if first else ""
                raise NeighborError(f"{error}{where}") from error
            charge = None if charges is None else charges[first:last]
            part = self.evaluate(batch, pairs, keys, charge, errors)
            if batch.n_structures == whole.n_structures:
                return part
            for key, values in part.items():
                of_atoms = is_per_atom(key)
                rows = slice(whole.offsets[first], whole.offsets[last]) if of_atoms else slice(first, last)
                if key not in found:
                    n_rows = whole.n_atoms if of_atoms else whole.n_structures
                    found[key] = np.empty((n_rows, *values.shape[1:]), values.dtype)
                found[key][rows] = values
        return found

    def evaluate(
        self,
        batch: Batch,
        pairs: Any,
        properties: Iterable[str] | None = None,
        total_charge: np.ndarray | None = None,
        errors: bool | None = None,
    ) -> dict[str, np.ndarray]:
        """Predict for a batch and its pairs, which `build_pairs`, `NeighborList` or the evaluator find.

        The result is that of `predict`, except that forces (n_atoms, 3) and charges (n_atoms,) run over the atoms of
        all structures, one after another.

        Raises
        ------
        GMError : a property is unknown, or a total charge is missing.
        """
        evaluator, keys = self.evaluator, self.evaluator.check_keys(properties)
        left_out = () if errors else ("forces", "stress")
        draw_keys = [] if errors is False else [key for key in keys if key not in left_out]
        found = evaluator.evaluate(batch, pairs, keys, total_charge, draw_keys, errors is not False)
        result = {key: found[key][0] if self.n_members == 1 else found[key].mean(axis=0) for key in keys}
        if errors is False and self.n_members == 1:
            return result
        deviations = {}
        for key in keys:
            if self.n_members > 1:
                deviations[key] = found[key].std(axis=0)
            elif f"{key}_draws" in found:
                deviations[key] = np.sqrt(np.mean((found[f"{key}_draws"] - result[key]) ** 2, axis=0))
        result |= {f"{key}_std": values for key, values in deviations.items()}
        if errors is False:
            return result
        grades = atom_grades = None
        environments = self.uncertainty.environments
        if environments is not None and PER_ATOM_GRADE in found:
            atom_grades = found[PER_ATOM_GRADE][0]
            grades = environments.structure_grades(atom_grades, batch.offsets)
        result |= self.uncertainty.errors(deviations, self._axes, grades, atom_grades)
        return result if grades is None else result | {"extrapolation": grades, PER_ATOM_GRADE: atom_grades}


def load_model(
    path: str | os.PathLike, dtype: str | None = None, device: str = "cpu", matmul: str = "float32"
) -> Model:
    """Read a model file and check that it still computes what it computed when it was written.

    Parameters
    ----------
    dtype : "float32" or "float64"; that of the training if not given.
    device : "cpu" or "cuda".
    matmul : on "cuda", "float32" or "tf32" (faster, 10 bits of mantissa in matrix products).

    Raises
    ------
    ModelFileError : the file is missing, truncated, foreign or newer, or does not reproduce its golden output.
    GMError : the device, dtype or matmul is unknown, or there is no usable GPU.
    """
    check_device(device)
    content = read_content(path)
    model = Model(content.settings, content.members, dtype, device, matmul, content.uncertainty)
    verify_golden(content, model.evaluator)
    return model


def _make_evaluator(settings, members, dtype, device, matmul) -> EvaluatorBase:
    """Evaluator of a device; what a GPU needs is imported only when one is asked for."""
    check_device(device)
    if device == "cuda":
        from gmcore.device.cuda import open_device

        opened = open_device()  # before the kernels are imported, which need what this one asks for
        from gmcore.engine.evaluator_cuda import DeviceEvaluator

        return DeviceEvaluator(opened, settings, members, dtype, matmul)
    if matmul != "float32":
        raise GMError(f"matmul must be 'float32' on the CPU, got {matmul!r}")
    return Evaluator(settings, members, dtype)


def batches(offsets: np.ndarray, batch_size: int | None, batch_atoms: int) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last structure of each batch; every batch has at least one structure."""
    n_structures = len(offsets) - 1
    if batch_size is not None and batch_size < 1:
        raise GMError(f"batch_size must be at least 1, got {batch_size}")
    first = 0
    while first < n_structures:
        if batch_size is None:
            fitting = int(np.searchsorted(offsets, offsets[first] + batch_atoms, side="right")) - 1
            last = min(max(fitting, first + 1), n_structures)
        else:
            last = min(first + batch_size, n_structures)
        yield first, last
        first = last


def _total_charges(n_structures: int, given: Any, settings: ModelSettings) -> np.ndarray | None:
    """Return the total charges (n_structures,), e, or None if the charge of a structure is not known.

    They are those given, one or one per structure, else the constant of the training data.
    """
    constant = next((head.options.total_charge for head in settings.heads if head.kind == "charges"), None)
    if given is None:
        given = constant
    elif isinstance(given, (list, tuple)):
        given = [constant if charge is None else charge for charge in given]
    if given is None or (isinstance(given, list) and any(charge is None for charge in given)):
        return None
    if np.shape(given) not in ((), (n_structures,)):
        raise GMError(f"total_charge must be one number or one per structure ({n_structures}), got {np.shape(given)}")
    try:
        charges = np.asarray(given, float)
    except (TypeError, ValueError):
        raise GMError(f"total_charge must be a number or numbers, got {excerpt(given)}") from None
    if not np.isfinite(charges).all():
        raise GMError(f"total_charge must be finite, got {excerpt(given)}")
    return np.broadcast_to(charges, n_structures)
