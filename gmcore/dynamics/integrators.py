"""The integrators by the names used in configurations."""

from __future__ import annotations

import inspect
from typing import Any

from numpy.typing import ArrayLike

from gmcore.dynamics.barostat import LangevinNPT
from gmcore.dynamics.forces import Forces
from gmcore.dynamics.integrator import Integrator, VelocityVerlet
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.nose_hoover import NoseHoover
from gmcore.dynamics.state import DynamicsError, State
from gmcore.errors import excerpt
from gmcore.suggest import did_you_mean

__all__ = ["INTEGRATORS", "Integrator", "Langevin", "LangevinNPT", "NoseHoover", "VelocityVerlet", "make_integrator"]

INTEGRATORS: dict[str, type[Integrator]] = {
    "nve": VelocityVerlet,
    "langevin": Langevin,
    "nose_hoover": NoseHoover,
    "npt": LangevinNPT,
}


def make_integrator(
    kind: str,
    forces: Forces,
    state: State,
    time_step: float = 0.5,
    temperatures: ArrayLike | None = None,
    **options: Any,
) -> Integrator:
    """Make an integrator by name.

    Parameters
    ----------
    kind : "nve", "langevin", "nose_hoover" or "npt".
    forces : `BatchForces` or analytic forces.
    state : state of the replicas, changed in place.
    time_step : fs.
    temperatures : target temperature of all replicas, or one per replica, K; "nve" does not use them.
    options : further parameters of the class of that kind.

    Raises
    ------
    DynamicsError : an unknown kind or option, or a value that the class does not accept.
    """
    if kind not in INTEGRATORS:
        raise DynamicsError(f"unknown ensemble {kind!r}{did_you_mean(kind, INTEGRATORS)}")
    chosen = INTEGRATORS[kind]
    known = list(inspect.signature(chosen).parameters)[3:]
    if "temperatures" in known:
        if temperatures is None:
            raise DynamicsError(f"{kind} needs target temperatures, got none")
        options["temperatures"] = temperatures
    for name in options:
        if name not in known:
            allowed = ", ".join(option for option in known if option != "temperatures")
            raise DynamicsError(f"the options of {kind} are {allowed}, got {excerpt(name)}{did_you_mean(name, known)}")
    return chosen(forces, state, time_step, **options)
