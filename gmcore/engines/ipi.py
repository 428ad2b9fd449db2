"""Energies, forces, virials and D of a model for i-PI: in its process, or as a client on a socket.

In i-PI's process (`ffdirect`) the class is loaded from a Python file (`pes: custom`):

    from gmcore.engines.ipi import IPIDriver
    __DRIVER_NAME__, __DRIVER_CLASS__ = "gmtensor", "IPIDriver"

With `batch_size` i-PI hands over the structures of several beads and replicas in one call; they are evaluated in one
batch. On a socket, i-PI announces a batch in its INIT message (from version 3.3 on).

i-PI has atomic units, and cells whose columns are the vectors. Virials are -dE/deps, zero for structures without
periodicity. D and, on request, deviations and grades go into i-PI's extras as JSON:

    d_tensor, 9 numbers for each molecule, row by row, cm^-1;  d_tensor_extrapolation, one grade for each molecule
    forces_deviation, root mean square over the atoms, eV/A;   extrapolation, grade of the structure

Not supported: a changing number of atoms, several systems with different atoms in one driver.

Source: Y. Litman et al., J. Chem. Phys. 2024, 161, 062504 (i-PI 3); the messages are those of i-PI's own Python driver.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
from gmcore.engines import EngineError
from gmcore.formats import read_structure
from gmcore.model import Model, load_model
from gmcore.units import conversion

HARTREE, BOHR = conversion("energy", "Hartree")[0], conversion("length", "Bohr")[0]
"""eV and A."""
UNIX_PREFIX = "/tmp/ipi_"
"""i-PI's default for the names of sockets."""
SHOWN = 60

Result = tuple[float, np.ndarray, np.ndarray, str]
"""Energy (Hartree), forces (n_atoms, 3) Hartree/Bohr, virial (3, 3) Hartree, extras."""


class IPIDriver:
    """A model as i-PI calls it; a committee uses its mean.

    Parameters
    ----------
    model : file of a model with an energy.
    template : file with the atoms, their order and the periodicity, in any format that ASE reads, or `ase.Atoms`.
    d_tensor : file of a model with a D tensor (default: none).
    metal : element that defines the molecules for D; otherwise `indices`, the atoms of one molecule or of several.
    deviations : also give deviations and extrapolation grades. This takes little time for a committee, but for a single
        model several times that of its forces.
    every : give extras only in every n-th call, from the first on. A call is a step where a batch holds all beads and
        replicas; i-PI must then write extras at the same steps.
    skin : margin of the neighbor list, A.
    dtype : "float32" or "float64"; that of the training if not given.
    threads : number of threads (default: all cores).
    others : arguments that i-PI adds for its own drivers are ignored.

    Raises
    ------
    EngineError : the model predicts no energy.
    GMError : a file cannot be read, or the molecules are not found.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        template: str | os.PathLike | Atoms,
        d_tensor: str | os.PathLike | None = None,
        metal: str | None = None,
        indices: list | None = None,
        deviations: bool = False,
        every: int = 1,
        skin: float = 1.0,
        dtype: str | None = None,
        threads: int | None = None,
        **others: Any,
    ):
        if threads is not None:
            from gmcore.threads import set_threads

            set_threads(threads)
        self._atoms = template if isinstance(template, Atoms) else read_structure(Path(template), 0)
        self._model: Model = load_model(model, dtype)
        if "energy" not in self._model.units:
            raise EngineError(
                f"the model for i-PI must predict an energy, got a model of {', '.join(self._model.units)}"
            )
        if int(every) < 1:
            raise EngineError(f"every must be at least 1, got {every}")
        self._deviations, self._skin = bool(deviations), float(skin)
        self._every, self._n_calls = int(every), 0
        self._observer: TensorObserver | None = None
        if d_tensor is not None:
            molecules = declared_molecules(self._atoms, metal, indices)
            self._observer = TensorObserver(load_model(d_tensor, dtype), molecules)
        self._forces: dict[int, BatchForces] = {}
        self._batch_forces(1)

    def __call__(self, cell: Any, positions: Any) -> Any:
        """Compute one structure or, given lists, several in one batch.

        Parameters
        ----------
        cell : (3, 3) Bohr, columns are the cell vectors; or a list.
        positions : (n_atoms, 3) Bohr; or a list.

        Returns
        -------
        energy (Hartree), forces (n_atoms, 3), virial (3, 3), and extras, JSON or empty; or a list of these.

        Raises
        ------
        EngineError : another number of atoms than in the template.
        StructureError, NeighborError : atoms coincide, or a cell has no volume.
        """
        if isinstance(cell, list | tuple):
            return self._compute(np.array(cell), np.array(positions))
        return self._compute(np.asarray(cell)[None], np.asarray(positions)[None])[0]

    def _batch_forces(self, n: int) -> BatchForces:
        """One neighbor list for each size of a batch: beads come in the same order in every step."""
        if n not in self._forces:
            self._forces[n] = BatchForces(self._model, self._atoms.numbers, self._atoms.pbc, n, self._skin)
        return self._forces[n]

    def _compute(self, cells: np.ndarray, positions: np.ndarray) -> list[Result]:
        n, n_atoms = len(positions), len(self._atoms)
        if positions.size != 3 * n * n_atoms:
            raise EngineError(f"i-PI must have the {n_atoms} atoms of the template, got {positions[0].size // 3}")
        places = BOHR * positions.reshape(n, n_atoms, 3).astype(np.float64)
        lattices = BOHR * np.swapaxes(cells, 1, 2).astype(np.float64)
        periodic = bool(self._atoms.pbc.any())
        found = self._batch_forces(n)(places, lattices, want_stress=periodic)
        virials = np.zeros((n, 3, 3))
        if found.stress is not None:
            virials = -found.stress * np.abs(np.linalg.det(lattices))[:, None, None]
        extras: dict[str, np.ndarray] = {}
        wanted = self._n_calls % self._every == 0
        self._n_calls += 1
        if self._deviations and wanted:
            deviation = found.forces_deviation()
            if not np.isnan(deviation).all():
                extras["forces_deviation"] = np.sqrt(np.mean(deviation**2, axis=1))
            if found.extrapolation is not None:
                extras["extrapolation"] = found.extrapolation[0]
        if self._observer is not None and wanted:
            observed = self._observer(places, lattices)
            extras["d_tensor"] = observed["d_tensor"].reshape(n, -1)
            if "d_tensor_extrapolation" in observed:
                extras["d_tensor_extrapolation"] = observed["d_tensor_extrapolation"]
        words = [json.dumps({k: v[i].tolist() for k, v in extras.items()}) if extras else "" for i in range(n)]
        forces = found.forces * (BOHR / HARTREE)
        return [(float(found.energies[i]) / HARTREE, forces[i], virials[i] / HARTREE, words[i]) for i in range(n)]


def serve(
    driver: IPIDriver, address: str | None = None, port: int = 31415, unix: str | None = None, timeout: float = 60.0
) -> int:
    """Compute what i-PI asks for on a socket, until i-PI ends.

    Parameters
    ----------
    driver : what computes.
    address, port : of i-PI, for a socket of the kind inet.
    unix : name of a socket of the kind unix, as in i-PI's input, or its path.
    timeout : s, how long to wait for i-PI to open the socket.

    Returns
    -------
    Number of structures that were computed.

    Raises
    ------
    EngineError : i-PI does not answer, ends without a word, or sends what is not known.
    GMError : as in the driver.
    """
    from ase.calculators.socketio import IPIProtocol, SocketClosed

    with _connect(address, port, unix, timeout) as connection:
        try:
            return _Conversation(IPIProtocol(connection), driver).run()
        except (SocketClosed, ConnectionError) as error:
            raise EngineError("i-PI closed the connection without a word: its own output says why") from error


def _connect(address: str | None, port: int, unix: str | None, timeout: float) -> socket.socket:
    """Open the socket; i-PI may still be starting."""
    import time

    where: Any
    if (address is None) == (unix is None):
        raise EngineError("i-PI must be given either by its address or by the name of its unix socket")
    if unix is not None:
        family, where = socket.AF_UNIX, unix if "/" in unix else UNIX_PREFIX + unix
    else:
        family, where = socket.AF_INET, (address, port)
    waited = 0.0
    while True:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.connect(where)
        except OSError as error:
            connection.close()
            if waited >= timeout:
                raise EngineError(f"i-PI does not answer at {where}: {error}; start i-PI first") from error
            time.sleep(0.2)
            waited += 0.2
            continue
        if family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are short
        return connection


class _Conversation:
    """The messages between i-PI and a driver, each introduced by twelve letters."""

    def __init__(self, protocol: Any, driver: IPIDriver):
        self._protocol, self._driver = protocol, driver
        self._ready, self._batch, self._count = False, 1, 0
        self._results: Sequence[Result] | None = None

    def run(self) -> int:
        while True:
            message = self._protocol.recvmsg()
            if message == "STATUS":
                state = "NEEDINIT" if not self._ready else "READY" if self._results is None else "HAVEDATA"
                self._protocol.sendmsg(state)
            elif message == "INIT":
                self._receive_start()
            elif message == "POSDATA":
                self._results = self._receive_structures()
                self._count += len(self._results)
            elif message == "GETFORCE" and self._results is not None:
                self._send_results(self._results)
                self._results = None
            elif message == "EXIT":
                return self._count
            else:
                raise EngineError(f"i-PI sent a message that is not known here: {message[:SHOWN]!r}")

    def _receive_start(self) -> None:
        """The text holds parameters of the force field, among them the size of a batch where there is one."""
        _, text = self._protocol.recvinit()
        self._ready = True
        for part in text.tobytes().decode("utf-8", errors="replace").split(","):
            key, _, value = part.partition(":")
            if key.strip() == "batch_size":
                self._batch = int(value)

    def _receive_structures(self) -> list[Result]:
        receive = self._protocol.recv
        if self._batch == 1:
            cell, _ = receive((3, 3), np.float64), receive((3, 3), np.float64)
            n_atoms = int(receive(1, np.int32)[0])
            return [self._driver(cell, receive((n_atoms, 3), np.float64))]
        n_atoms = int(receive(1, np.int32)[0])
        cells = receive((self._batch, 2, 3, 3), np.float64)[:, 0]  # each with its inverse
        positions = receive((self._batch, n_atoms, 3), np.float64)
        return self._driver(list(cells), list(positions))

    def _send_results(self, results: Sequence[Result]) -> None:
        send = self._protocol.send
        self._protocol.sendmsg("FORCEREADY")
        send([energy for energy, _, _, _ in results], np.float64)
        send([len(results[0][1])], np.int32)
        for forces in (result[1] for result in results):
            send(forces, np.float64)
        for virial in (result[2] for result in results):
            send(virial, np.float64)
        for words in (result[3].encode() for result in results):
            send([len(words)], np.int32)
            self._protocol.socket.sendall(words)
