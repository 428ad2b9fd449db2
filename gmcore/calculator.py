"""ASE calculator of a model file.

Besides ASE's own properties `results` holds tensors under the names of their heads (`d_tensor`, cm^-1) and, for a
committee, the population standard deviation of everything: `energy_std`, `forces_std`, ...; `stress` and `stress_std`
are in Voigt order, eV/A^3, and missing for structures without a cell. There is no electronic entropy, so `free_energy`
is the energy. With `errors` also the calibrated errors (`energy_error`, `forces_error` for each atom, ...)
and the extrapolation grades (`extrapolation`, `extrapolation_atoms`), see `gmcore.model`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from gmcore.engine.structures import Batch
from gmcore.model import Model, load_model
from gmcore.quantities import is_per_atom, quantity_of


class GMCalculator(Calculator):
    """Energies, forces, stress, charges, dipole and tensors of a model for ASE.

    Parameters
    ----------
    model : path of a model file, or a loaded `Model`.
    skin : A; the neighbor list (attribute `neighbors`) is reused until atoms have moved by about half of the skin.
    dtype : "float32" or "float64"; that of the training if not given.
    total_charge : e, for models whose charges must sum to it; if not given, `atoms.info["total_charge"]`.
    device : "cpu" or "cuda", for a model that is given as a path.
    errors : also calculate calibrated errors, extrapolation grades, and deviations of a single model. This takes little
        time for a committee, but for a single model several times that of its forces.

    Examples
    --------
    >>> atoms.calc = GMCalculator("model.h5")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties: list[str] = []  # noqa: RUF012 - ASE declares it so; those of the model, set on the instance

    def __init__(
        self,
        model: str | os.PathLike | Model,
        skin: float = 1.0,
        dtype: str | None = None,
        total_charge: float | None = None,
        device: str = "cpu",
        errors: bool = False,
        **kwargs,
    ):
        self.model = model if isinstance(model, Model) else load_model(model, dtype, device)
        self.total_charge, self.errors = total_charge, bool(errors)
        self.implemented_properties = list(self.model.units)
        if "energy" in self.model.units:
            self.implemented_properties.append("free_energy")
        self.neighbors = self.model.evaluator.neighbor_list(skin)
        super().__init__(**kwargs)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with everything that the model predicts; forces cost little more than an energy.

        Raises
        ------
        UnknownElementError, StructureError, NeighborError, GMError : as for `Model.predict`.
        """
        super().calculate(atoms, properties, system_changes)
        batch = Batch.from_atoms(self.atoms)
        stated = self.atoms.info.get("total_charge") if self.total_charge is None else self.total_charge
        charges = None if stated is None else np.array([stated], float)
        outputs = self.model.evaluate(batch, self.neighbors.update(batch), total_charge=charges, errors=self.errors)
        for key, value in outputs.items():
            value = value if is_per_atom(key) else value[0]
            if quantity_of(key) == "stress":
                if np.isnan(value).any():
                    continue
                value = value if key == "stress_error" else full_3x3_to_voigt_6_stress(value)
            self.results[key] = float(value) if np.ndim(value) == 0 else value
        if "energy" in self.results:
            self.results["free_energy"] = self.results["energy"]
