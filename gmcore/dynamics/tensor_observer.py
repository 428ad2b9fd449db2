"""D tensors of molecules along a trajectory, from a model of their own.

The molecules of all replicas are cut out of their surroundings, made whole through their bonds, and evaluated as
isolated molecules, which is what the D model was trained on, in one batch and one call. The neighbor list is built
anew each time, so that values do not depend on what was evaluated before.

Not supported: D models that look at the surroundings of a molecule.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.molecules.molecules import Molecules


class TensorObserver:
    """D of the molecules of every replica.

    Parameters
    ----------
    model : with one D tensor in cm^-1.
    molecules : which atoms, and in which order.

    Raises
    ------
    GMError : a model without a D tensor, with several, or with another unit.
    UnknownElementError : an element of the molecules that the model does not know.
    """

    def __init__(self, model: Model, molecules: Molecules):
        names = [head.name for head in model.settings.heads if head.kind == "d_tensor"]
        if len(names) != 1:
            raise GMError(f"the model for d_tensor must predict one D tensor, it predicts {', '.join(model.units)}")
        self._name = names[0]
        if model.units[self._name] != "cm^-1":
            raise GMError(f"the model for d_tensor must give cm^-1, it gives {model.units[self._name]}")
        model.species.index(molecules.numbers)
        self._evaluator, self.molecules = model.evaluator, molecules

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate D at positions (n_replicas, n_atoms, 3) A in cells (n_replicas, 3, 3) A.

        Returns
        -------
        molecule_position (n_replicas, n_molecules, n_molecule_atoms, 3) A, d_tensor (n_replicas, n_molecules, 3, 3)
        cm^-1, the mean of a committee, and for a committee d_tensor_members (n_replicas, n_members, n_molecules, 3, 3).
        """
        whole = self.molecules.extract(positions, cells)
        n_replicas, n_molecules, n_atoms = whole.shape[:3]
        batch = Batch.from_arrays(
            whole.reshape(-1, 3),
            np.tile(self.molecules.numbers, n_replicas * n_molecules),
            offsets=np.arange(n_replicas * n_molecules + 1) * n_atoms,
        )
        members = self._evaluator.evaluate(batch, self._evaluator.find_pairs(batch), (self._name,))[self._name]
        members = np.moveaxis(members.reshape(-1, n_replicas, n_molecules, 3, 3), 0, 1)
        found = {"molecule_position": whole, "d_tensor": members.mean(axis=1)}
        return found if members.shape[1] == 1 else found | {"d_tensor_members": members}


def declared_molecules(
    atoms: Atoms, metal: str | None, indices: list | None, reference: Atoms | None = None
) -> Molecules:
    """Molecules of a structure by their metal or by the indices of their atoms; errors as of `Molecules`."""
    if metal is not None:
        return Molecules.from_metal(atoms, metal, reference)
    return Molecules.from_indices(atoms, indices, reference)
