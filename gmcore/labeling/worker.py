"""The process in which an ASE calculator or a function of the user's computes one frame after the other.

It reads lines of JSON, first the settings, then frames, and answers each with one line. What the code prints goes into
`log.txt` in the folder of the frame, which is also the current folder.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

START = """
import sys
sys.path[:] = [path for path in sys.path if path]
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.append(root)
from gmcore.labeling.worker import main
main()
"""
"""What the process executes: without the current folder on the import path, see `gmcore.workflow`."""

Compute = Callable[[Any], Mapping[str, Any]]
"""Quantity -> value for `ase.Atoms` with total_charge and multiplicity, where known, in `info`."""


class _Unfit(Exception):
    """Code that cannot be used; the message is for the user."""


def main() -> None:
    """Serve frames until the standard input ends."""
    requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)

    def reply(message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        compute, identity = _prepared(json.loads(requests.readline()))
    except BaseException as error:
        traceback.print_exc()
        reply({"error": _reason(error)})
        return
    reply({"identity": identity})
    for line in requests:
        reply(_answer(compute, json.loads(line)))


def _prepared(settings: Mapping[str, Any]) -> tuple[Compute, str]:
    """Import the code; return what computes a frame, and the versions that decide about its results."""
    if settings["method"] == "ase":
        return _calculator(settings)
    return _function(settings)


def _answer(compute: Compute, frame: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np
    from ase import Atoms

    os.chdir(frame["folder"])
    with open("log.txt", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    info = {name: frame[name] for name in ("total_charge", "multiplicity") if frame[name] is not None}
    atoms = Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=frame["pbc"], info=info)
    try:
        found = {name: np.asarray(value) for name, value in compute(atoms).items()}
        for name, value in found.items():
            if np.iscomplexobj(value) and np.any(value.imag):
                raise _Unfit(f"{name} must be real, got complex numbers")
        values = {name: np.real(value).astype(np.float64).tolist() for name, value in found.items()}
    except BaseException as error:  # sys.exit() of the user's code as well
        traceback.print_exc()
        return {"error": _reason(error)}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return {"values": values}


def _function(settings: Mapping[str, Any]) -> tuple[Compute, str]:
    place, _, name = settings["function"].rpartition(":")
    if place.endswith(".py"):
        module, version = _module_of(Path(place)), hashlib.sha256(Path(place).read_bytes()).hexdigest()
    else:
        module = importlib.import_module(place)
        source = getattr(module, "__file__", None)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
        version = f"{digest} {_version(place)}"
    function = getattr(module, name, None)
    if not callable(function):
        raise _Unfit(f"{place} has no function {name!r}")
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        and parameter.name not in settings["arguments"]
    ]
    if len(required) not in (1, 2):
        raise _Unfit(f"the function {name} must take (numbers, positions) or (atoms), got {len(required)} arguments")

    def compute(atoms: Any) -> Mapping[str, Any]:
        import numpy as np

        given = (atoms,) if len(required) == 1 else (atoms.numbers, atoms.positions)
        result = function(*given, **settings["arguments"])
        if isinstance(result, Mapping):
            return result
        shape = np.shape(result)
        if shape not in ((), (3, 3)) or result is None:
            raise _Unfit(
                f"the function {name} must return a D tensor (3, 3), an energy, or a dictionary of quantities, "
                f"got a value of type {type(result).__name__} with shape {shape}"
            )
        return {"d_tensor" if shape else "energy": result}

    return compute, version


def _module_of(path: Path) -> Any:
    """Execute a file as a module that may import others of its folder."""
    if not path.is_file():
        raise _Unfit(f"the file {path} does not exist")
    sys.path.append(str(path.parent))  # last: a file yaml.py there is no substitute for the package
    spec = importlib.util.spec_from_file_location("gmtensor_user_function", path)
    if spec is None or spec.loader is None:
        raise _Unfit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _calculator(settings: Mapping[str, Any]) -> tuple[Compute, str]:
    place, _, name = settings["calculator"].rpartition(".")
    factory = getattr(importlib.import_module(place or "ase.calculators"), name, None)
    if not callable(factory):
        raise _Unfit(f"{place} has no calculator {name!r}")
    taken = set(getattr(factory, "default_parameters", ()))
    with suppress(TypeError, ValueError):  # code without a signature
        taken |= set(inspect.signature(factory).parameters)

    def compute(atoms: Any) -> Mapping[str, Any]:
        arguments = dict(settings["arguments"])
        for key, option, usual in (("total_charge", "charge", 0), ("multiplicity", "multiplicity", 1)):
            argument, value = settings[option], atoms.info.get(key)
            if argument is not None:
                if value is None:
                    raise _Unfit(f"the calculator needs the {key} of the frame: set {key} in the configuration")
                arguments[argument] = int(value) if value == int(value) else value
            elif value not in (None, usual) and option in taken - arguments.keys():
                raise _Unfit(
                    f"the {key} {value:g} of the frame would not reach {name}: set ase.{option} to the name of its "
                    f"argument, {option}"
                )
        calculator = factory(**arguments)
        atoms.info = {}
        atoms.calc = calculator
        found = {quantity: _METHODS[quantity](atoms) for quantity in settings["quantities"]}
        if "energy" in found and "forces" in found:
            # with smeared occupations, forces are derivatives of the free energy
            found["energy"] = calculator.results.get("free_energy", found["energy"])
        return found

    return compute, f"ase {_version('ase')} {place} {_version(place)}"


_METHODS: dict[str, Callable[[Any], Any]] = {
    "energy": lambda atoms: atoms.get_potential_energy(),
    "forces": lambda atoms: atoms.get_forces(),
    "stress": lambda atoms: atoms.get_stress(voigt=False),
    "charges": lambda atoms: atoms.get_charges(),
    "dipole": lambda atoms: atoms.get_dipole_moment(),
}


def _version(module: str) -> str:
    """Version of the distribution that a module comes from; empty where there is none."""
    package = module.split(".")[0]
    found = importlib.metadata.packages_distributions().get(package, ())
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(found)))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, (_Unfit, ValueError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
