"""Relaxation to the nearest minimum of the energy, for the start of a run and for harmonic modes."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.calculator import GMCalculator
from gmcore.errors import GMError
from gmcore.model import Model

RELAXED = 1e-4
"""eV/A: default of the largest force on an atom after a relaxation."""

LARGE = 200  # atoms; above, the dense matrix of BFGS costs more time than the forces


class RelaxationError(GMError):
    """A structure cannot be relaxed, or not to the requested forces."""


def relax(atoms: Atoms, model: Model, fmax: float = RELAXED, max_steps: int = 1000, cell: bool = False) -> Atoms:
    """Return a copy of `atoms` at the nearest minimum, found with ASE's BFGS (L-BFGS above 200 atoms).

    Parameters
    ----------
    atoms : the structure, without constraints.
    model : a model that predicts forces; small values of `fmax` need double precision.
    fmax : largest force that may remain on an atom, eV/A.
    max_steps : largest number of steps.
    cell : also relax the cell of a crystal.

    Raises
    ------
    RelaxationError : no minimum within `max_steps`, no atoms, constraints, a model without forces, or `cell` for a
        system that is not periodic in three directions.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, LBFGS

    if not len(atoms):
        raise RelaxationError("a relaxation needs at least one atom, got none")
    if atoms.constraints:
        raise RelaxationError(
            f"a relaxation cannot use constraints, got {len(atoms.constraints)}: remove them from the structure"
        )
    if "forces" not in model.units:
        raise RelaxationError(f"a relaxation needs a model with forces, got a model of {', '.join(model.units)}")
    if not fmax > 0.0:
        raise RelaxationError(f"the largest remaining force of a relaxation must be positive, got {fmax} eV/A")
    if cell and not atoms.pbc.all():
        raise RelaxationError(
            "relaxing the cell needs a system that is periodic in all three directions, got pbc "
            f"{np.asarray(atoms.pbc).tolist()}"
        )
    relaxed = atoms.copy()
    relaxed.calc = GMCalculator(model)
    target = FrechetCellFilter(relaxed) if cell else relaxed
    optimizer = (BFGS if len(atoms) <= LARGE else LBFGS)(target, logfile=None)
    converged = optimizer.run(fmax=fmax, steps=max_steps)
    left = float(np.linalg.norm(relaxed.get_forces(), axis=1).max(initial=0.0))
    relaxed.calc = None
    if not converged:
        raise RelaxationError(
            f"the relaxation must reach forces below {fmax:g} eV/A, got {left:.3g} eV/A after {max_steps} steps: "
            "evaluate the model in double precision, or allow larger forces"
        )
    return relaxed
