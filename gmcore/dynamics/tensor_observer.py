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
        heads = [head for head in model.settings.heads if head.kind == "d_tensor"]
        if len(heads) != 1:
            raise GMError(f"the model for d_tensor must predict one D tensor, got a model of {', '.join(model.units)}")
        self.head, self._name = heads[0], heads[0].name
        if model.units[self._name] != "cm^-1":
            raise GMError(f"the model for d_tensor must predict D in cm^-1, got {model.units[self._name]}")
        model.species.index(molecules.numbers)
        self.model, self._evaluator, self.molecules = model, model.evaluator, molecules

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
        batch = self.batch(whole)
        pairs, keys = self._evaluator.find_pairs(batch), (self._name,)
        predicted = self._evaluator.evaluate(batch, pairs, keys, draw_keys=keys, want_extrapolation=True)
        grades = predicted[PER_ATOM_GRADE][0] if PER_ATOM_GRADE in predicted else None
        if grades is None and self._evaluator.environments is not None:  # of a GPU
            grades = self._evaluator.extrapolation(batch, pairs)
        return self.samples(whole, predicted[self._name], predicted.get(f"{self._name}_draws"), grades)

    def batch(self, whole: np.ndarray) -> Batch:
        """Return whole molecules (n_replicas, n_molecules, n_molecule_atoms, 3) as isolated structures."""
        n_replicas, n_molecules, n_atoms = whole.shape[:3]
        return Batch.from_arrays(
            whole.reshape(-1, 3),
            np.tile(self.molecules.numbers, n_replicas * n_molecules),
            offsets=np.arange(n_replicas * n_molecules + 1) * n_atoms,
        )

    def samples(
        self, whole: np.ndarray, members: np.ndarray, draws: np.ndarray | None, grades: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Return what a call returns.

        Parameters
        ----------
        whole : (n_replicas, n_molecules, n_molecule_atoms, 3) A.
        members : (n_members, n_replicas * n_molecules, 3, 3) cm^-1.
        draws : the same for the draws of a single model; None without draws.
        grades : (n_replicas * n_molecules * n_molecule_atoms,) of the atoms; None where they are not known.
        """
        n_replicas, n_molecules, n_atoms = whole.shape[:3]
        found = {"molecule_position": whole, "d_tensor": members.mean(axis=0).reshape(n_replicas, n_molecules, 3, 3)}
        spread = members if len(members) > 1 else draws
        if spread is not None:
            found["d_tensor_members"] = np.moveaxis(spread.reshape(-1, n_replicas, n_molecules, 3, 3), 0, 1)
        environments = self.model.uncertainty.environments
        if grades is not None and environments is not None:
            offsets = np.arange(n_replicas * n_molecules + 1) * n_atoms
            of_molecules = environments.structure_grades(grades, offsets)
            found["d_tensor_extrapolation"] = of_molecules.reshape(n_replicas, n_molecules)
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
