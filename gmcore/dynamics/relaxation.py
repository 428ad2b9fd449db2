"""The nearest minimum of the energy, where a dynamics starts and modes are found."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.calculator import GMCalculator
from gmcore.errors import GMError
from gmcore.model import Model

RELAXED = 1e-4
"""eV/A: largest force on an atom after a relaxation."""

LARGE = 200  # atoms; beyond, the dense matrix of BFGS costs more than the forces


class RelaxationError(GMError):
    """A structure that cannot be relaxed, or not far enough."""


def relax(atoms: Atoms, model: Model, fmax: float = RELAXED, max_steps: int = 1000, cell: bool = False) -> Atoms:
    """A copy of `atoms` at the nearest minimum, found with ASE's BFGS (beyond 200 atoms L-BFGS).

    Parameters
    ----------
    model : with energy and forces; in double precision it can be driven to any `fmax`.
    fmax : eV/A, largest force that may be left on an atom.
    cell : also relax the cell of a crystal.

    Raises
    ------
    RelaxationError : no minimum within `max_steps`; `cell` without periodicity in three directions; constraints.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, LBFGS

    if not len(atoms):
        raise RelaxationError("a relaxation needs at least one atom, got none")
    if atoms.constraints:
        raise RelaxationError(f"the atoms must be free to move, got {len(atoms.constraints)} constraints")
    if "forces" not in model.units:
        raise RelaxationError(f"a relaxation needs a model with forces, this one predicts {', '.join(model.units)}")
    if not fmax > 0.0:
        raise RelaxationError(f"the force to relax to must be positive, got {fmax}")
    if cell and not atoms.pbc.all():
        raise RelaxationError("only a cell that is periodic in three directions can be relaxed, got one that is not")
    relaxed = atoms.copy()
    relaxed.calc = GMCalculator(model)
    target = FrechetCellFilter(relaxed) if cell else relaxed
    optimizer = (BFGS if len(atoms) <= LARGE else LBFGS)(target, logfile=None)
    converged = optimizer.run(fmax=fmax, steps=max_steps)
    left = float(np.linalg.norm(relaxed.get_forces(), axis=1).max(initial=0.0))
    relaxed.calc = None
    if not converged:
        raise RelaxationError(
            f"the relaxation must reach forces below {fmax:g} eV/A within {max_steps} steps, got {left:.3g} eV/A; "
            "a model in double precision or a larger limit may help"
        )
    return relaxed
