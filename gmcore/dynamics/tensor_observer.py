"""D tensors of molecules during a run, from a separate model.

The molecules of all replicas are extracted, made whole along their bonds, and evaluated as isolated molecules in one
batch. D models are trained on isolated molecules, too. Each call builds a new neighbor list, so that the values do not
depend on earlier calls.

Not supported: D models that depend on the surroundings of a molecule.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.molecules.molecules import Molecules
from gmcore.quantities import PER_ATOM_GRADE


class TensorObserver:
    """Computes D of the molecules of every replica.

    Parameters
    ----------
    model : a model that predicts one D tensor in cm^-1.
    molecules : the atoms of the molecules and their order.

    Raises
    ------
    GMError : the model predicts no D tensor, several, or one in another unit.
    UnknownElementError : the model does not know an element of the molecules.
    """

    def __init__(self, model: Model, molecules: Molecules):
        names = [head.name for head in model.settings.heads if head.kind == "d_tensor"]
        if len(names) != 1:
            raise GMError(f"the model for d_tensor must predict one D tensor, got a model of {', '.join(model.units)}")
        self._name = names[0]
        if model.units[self._name] != "cm^-1":
            raise GMError(f"the model for d_tensor must predict D in cm^-1, got {model.units[self._name]}")
        model.species.index(molecules.numbers)
        self._evaluator, self.molecules = model.evaluator, molecules

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Compute D at positions (n_replicas, n_atoms, 3) A in cells (n_replicas, 3, 3) A.

        Returns
        -------
        molecule_position : (n_replicas, n_molecules, n_molecule_atoms, 3) A, the whole molecules.
        d_tensor : (n_replicas, n_molecules, 3, 3) cm^-1, for a committee the mean.
        d_tensor_members : (n_replicas, n_members, n_molecules, 3, 3) cm^-1, for a committee its members, for a single
            model the draws of its last layer, whose deviation is that from `d_tensor`; left out if there are neither.
        d_tensor_extrapolation : (n_replicas, n_molecules) grades; left out if the training data are not known.
        """
        whole = self.molecules.extract(positions, cells)
        n_replicas, n_molecules, n_atoms = whole.shape[:3]
        batch = Batch.from_arrays(
            whole.reshape(-1, 3),
            np.tile(self.molecules.numbers, n_replicas * n_molecules),
            offsets=np.arange(n_replicas * n_molecules + 1) * n_atoms,
        )
        pairs, keys = self._evaluator.find_pairs(batch), (self._name,)
        predicted = self._evaluator.evaluate(batch, pairs, keys, draw_keys=keys, want_extrapolation=True)
        members = predicted[self._name]
        found = {"molecule_position": whole, "d_tensor": members.mean(axis=0).reshape(n_replicas, n_molecules, 3, 3)}
        if len(members) == 1:
            members = predicted.get(f"{self._name}_draws", members[:0])
        if len(members):
            found["d_tensor_members"] = np.moveaxis(members.reshape(-1, n_replicas, n_molecules, 3, 3), 0, 1)
        if PER_ATOM_GRADE in predicted:
            grades = self._evaluator.environments.structure_grades(predicted[PER_ATOM_GRADE][0], batch.offsets)
            found["d_tensor_extrapolation"] = grades.reshape(n_replicas, n_molecules)
        return found


def declared_molecules(
    atoms: Atoms, metal: str | None, indices: list | None, reference: Atoms | None = None
) -> Molecules:
    """Find the molecules of a structure by their metal or by the indices of their atoms.

    Parameters
    ----------
    atoms : the structure.
    metal : element that identifies a molecule; None if `indices` are given.
    indices : atoms of one molecule, or one list for each of several molecules.
    reference : structure whose order of atoms the molecules get (default: the order of the first molecule).

    Raises
    ------
    GMError : as in `Molecules`.
    """
    if metal is not None:
        return Molecules.from_metal(atoms, metal, reference)
    if indices is None:
        raise GMError("molecules must be given by their metal or by the indices of their atoms, got neither")
    return Molecules.from_indices(atoms, indices, reference)
