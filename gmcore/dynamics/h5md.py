"""The layout of trajectory files: H5MD 1.1 (de Buyl, Colberg, Hofling, Comput. Phys. Commun. 2014, 185, 1546).

    h5md/                        version, author, creator, modules/units
    particles/replica_000/       species, mass, box/edges, position, velocity
    observables/replica_000/     energies, temperature, deviations, D tensors, positions of molecules
    parameters/                  time step, ensemble, seeds and target temperatures, atoms of the molecules

A quantity that changes in time is a group of step, time and value. Replicas share steps and times by hard links. Units
are the `unit` attributes of H5MD's module for units, where A/fs reads "Angstrom fs-1". Each file is a whole H5MD file;
those of a run, one per chunk, are joined by `merge_segments`, which streams and needs memory for one block only.

Not supported: numbers of atoms that change, and positions wrapped into the cell.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gmcore.errors import GMError
from gmcore.files import atomic_hdf5, atomic_path
from gmcore.quantities import BY_NAME
from gmcore.version import __version__

if TYPE_CHECKING:
    import h5py

MERGE_BYTES = 64 * 2**20
"""Memory for one block of a quantity while files are joined."""

BLOCK_BYTES = 2**18
"""Largest size of a block of a dataset on the disk."""

STEP_ROWS = 4096
"""Largest number of samples in a block."""


class TrajectoryError(GMError):
    """A trajectory that cannot be read or written."""


class Recorded(NamedTuple):
    """What a trajectory holds under one name: shape of one sample (names of sizes are those of `Header`) and unit."""

    shape: tuple[str | int, ...]
    unit: str

    @property
    def h5md_unit(self) -> str:
        """The unit as H5MD writes it: factors with their powers, Angstrom spelled out."""
        top, *below = self.unit.split("/")
        factors = [top, *(f"{base}^-{power or 1}" for base, _, power in (part.partition("^") for part in below))]
        return " ".join("Angstrom" + f[1:] if f.split("^")[0] == "A" else f for f in factors).replace("^", "")


PARTICLES: dict[str, Recorded] = {
    "position": Recorded(("n_atoms", 3), "A"),
    "velocity": Recorded(("n_atoms", 3), "A/fs"),
    "box": Recorded((3, 3), "A"),
}
OBSERVABLES: dict[str, Recorded] = {
    "potential_energy": Recorded((), BY_NAME["energy"].unit),
    "kinetic_energy": Recorded((), BY_NAME["energy"].unit),
    "conserved": Recorded((), BY_NAME["energy"].unit),
    "temperature": Recorded((), "K"),
    "stress": Recorded(BY_NAME["stress"].shape, BY_NAME["stress"].unit),
    "energy_deviation": Recorded((), BY_NAME["energy"].unit),
    "forces_deviation": Recorded((), BY_NAME["forces"].unit),
    "d_tensor": Recorded(("n_molecules", 3, 3), BY_NAME["d_tensor"].unit),
    "d_tensor_members": Recorded(("n_members", "n_molecules", 3, 3), BY_NAME["d_tensor"].unit),
    "molecule_position": Recorded(("n_molecules", "n_molecule_atoms", 3), "A"),
}
QUANTITIES = PARTICLES | OBSERVABLES


@dataclass(frozen=True, eq=False)
class Header:
    """What stays the same along a trajectory.

    Attributes
    ----------
    numbers, masses, pbc : (n_atoms,) atomic numbers, (n_atoms,) amu and (3,) bool, the same for all replicas.
    time_step : fs.
    ensemble : "nve", "langevin", "nose_hoover" or "npt".
    temperatures : (n_replicas,) target temperatures, K; NaN for nve.
    seeds : (n_replicas,) seeds of the random numbers.
    molecule_numbers : (n_molecule_atoms,) atomic numbers in the order of the D model; None without molecules.
    molecules : (n_molecules, n_molecule_atoms) indices of their atoms; None without molecules.
    """

    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    time_step: float
    ensemble: str
    temperatures: np.ndarray
    seeds: np.ndarray
    molecule_numbers: np.ndarray | None = None
    molecules: np.ndarray | None = None

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def n_replicas(self) -> int:
        return len(self.seeds)

    def sizes(self) -> dict[str, int]:
        """Sizes that shapes of quantities are made of; the number of members is not known here."""
        sizes = {"n_atoms": self.n_atoms}
        if self.molecules is not None:
            sizes["n_molecules"], sizes["n_molecule_atoms"] = np.shape(self.molecules)
        return sizes


def replica_name(replica: int) -> str:
    """Name of the groups of a replica.

    >>> replica_name(3)
    'replica_003'
    """
    return f"replica_{replica:03d}"


def place(name: str, replica: int) -> str:
    """Path of a quantity of a replica inside the file."""
    if name == "box":
        return f"particles/{replica_name(replica)}/box/edges"
    return f"{'particles' if name in PARTICLES else 'observables'}/{replica_name(replica)}/{name}"


def write_segment(path: str | Path, header: Header, data: Mapping[str, tuple[Any, Any]]) -> None:
    """Write a trajectory file; it appears whole or not at all.

    Parameters
    ----------
    data : name of `QUANTITIES` -> (steps (n,), values (n_replicas, n, ...)); steps rise and count from the start of
        the production. The box must be there at the steps of the positions for periodic systems, and only for those.

    Raises
    ------
    TrajectoryError : an unknown quantity, a wrong shape, or steps that do not rise.
    WriteError : the disk is full or the folder cannot be written to.
    """
    arrays = {name: _checked(header, name, *data[name]) for name in data}
    if header.pbc.any() != ("box" in arrays) and "position" in arrays:
        raise TrajectoryError(f"a box belongs to periodic systems and to no other, got pbc {header.pbc.tolist()}")
    if "box" in arrays and not np.array_equal(arrays["box"][0], arrays.get("position", ((), ()))[0]):
        raise TrajectoryError("the box must be given at the steps of the positions")
    with atomic_hdf5(path) as file:
        _write_frame(file, header)
        for name, (steps, values) in arrays.items():
            _create(file, header, name, values.shape[2:], values.dtype, len(steps))
            _append(file, name, steps, steps * header.time_step, values)


def merge_segments(target: str | Path, header: Header, sources: Sequence[Path], n_segments: int) -> None:
    """Join trajectory files of one run, in the order of time, into one; `target` may be the first of the sources.

    Parameters
    ----------
    n_segments : how many segments of the run the result then holds; a reader leaves those aside.

    Raises
    ------
    TrajectoryError : the disk has no room for the joined file.
    """
    import h5py

    needed, folder = sum(source.stat().st_size for source in sources), Path(target).parent
    free = shutil.disk_usage(folder).free
    if needed * 1.05 > free:
        raise TrajectoryError(
            f"joining the trajectory needs {needed * 1.05 / 2**20:.0f} MiB on the disk of {folder}, "
            f"{free / 2**20:.0f} MiB are free; its parts are complete and can be read as they are"
        )
    with atomic_path(target) as temporary, h5py.File(temporary, "w") as file:
        _write_frame(file, header)
        file["parameters"].attrs["n_segments"] = n_segments
        for source in sources:
            with h5py.File(source, "r") as part:
                for name in names_in(part):
                    groups = [part[place(name, replica)] for replica in range(header.n_replicas)]
                    if place(name, 0) not in file:
                        values = groups[0]["value"]
                        _create(file, header, name, values.shape[1:], values.dtype, len(values) * len(sources))
                    for rows in _blocks(groups[0]["value"], header.n_replicas):
                        values = np.stack([group["value"][rows] for group in groups])
                        _append(file, name, groups[0]["step"][rows], groups[0]["time"][rows], values)


def names_in(file: h5py.File) -> tuple[str, ...]:
    """Quantities that a file holds, in the order of `QUANTITIES`."""
    return tuple(name for name in QUANTITIES if place(name, 0) in file)


def read_header(file: h5py.File) -> Header:
    """What stays the same along the trajectory of a file."""
    fixed, first = file["parameters"], file[f"particles/{replica_name(0)}"]
    molecules = fixed["molecules"][()] if "molecules" in fixed else None
    return Header(
        numbers=first["species"][()],
        masses=first["mass"][()],
        pbc=np.array([boundary == "periodic" for boundary in first["box"].attrs["boundary"]]),
        time_step=float(fixed.attrs["time_step"]),
        ensemble=str(fixed.attrs["ensemble"]),
        temperatures=fixed["temperatures"][()],
        seeds=fixed["seeds"][()],
        molecule_numbers=fixed["molecule_species"][()] if molecules is not None else None,
        molecules=molecules,
    )


def _checked(header: Header, name: str, steps: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Steps as int64 and values as floats of the right shape; float32 stays what it is."""
    if name not in QUANTITIES:
        raise TrajectoryError(f"a trajectory holds {', '.join(QUANTITIES)}, it has no place for {name!r}")
    steps, values = np.asarray(steps, np.int64), np.asarray(values)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if steps.ndim != 1 or (np.diff(steps) <= 0).any() or (steps < 0).any():
        raise TrajectoryError(f"steps must rise from 0 or above, got {steps.tolist()[:10]} for {name}")
    sizes = header.sizes()
    shape = (header.n_replicas, len(steps), *(sizes.get(size, size) for size in QUANTITIES[name].shape))
    fits = len(shape) == values.ndim and all(
        a == b or isinstance(a, str) for a, b in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise TrajectoryError(f"{name} must have shape {shape}, got {values.shape}".replace("'", ""))
    return steps, values


def _write_frame(file: h5py.File, header: Header) -> None:
    """Everything but the quantities that change in time."""
    import h5py

    root = file.create_group("h5md")
    root.attrs["version"] = np.array([1, 1], np.int32)
    root.create_group("author").attrs["name"] = "not stated"
    root.create_group("creator").attrs.update({"name": "gmtensor", "version": __version__})
    root.create_group("modules/units").attrs["version"] = np.array([1, 0], np.int32)
    fixed = file.create_group("parameters")
    fixed.attrs.update({"time_step": float(header.time_step), "time_step_unit": "fs", "ensemble": header.ensemble})
    fixed["temperatures"] = np.asarray(header.temperatures, np.float64)
    fixed["temperatures"].attrs["unit"] = "K"
    fixed["seeds"] = np.asarray(header.seeds, np.int64)
    if header.molecules is not None:
        fixed["molecules"] = np.asarray(header.molecules, np.int64)
        fixed["molecule_species"] = np.asarray(header.molecule_numbers, np.int32)
    boundary = np.array(["periodic" if periodic else "none" for periodic in header.pbc], object)
    for replica in range(header.n_replicas):
        particles = file.create_group(f"particles/{replica_name(replica)}")
        particles["species"] = np.asarray(header.numbers, np.int32)
        particles["mass"] = np.asarray(header.masses, np.float64)
        particles["mass"].attrs["unit"] = "u"
        box = particles.create_group("box")
        box.attrs["dimension"] = 3
        box.attrs.create("boundary", boundary, dtype=h5py.string_dtype())
        file.create_group(f"observables/{replica_name(replica)}")


def _create(
    file: h5py.File, header: Header, name: str, shape: tuple[int, ...], dtype: np.dtype, n_expected: int
) -> None:
    """Empty, growing datasets of a quantity for every replica; blocks are not larger than what is expected."""
    row_bytes = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
    rows = int(np.clip(min(BLOCK_BYTES // row_bytes, n_expected), 1, STEP_ROWS))
    step_rows = int(np.clip(n_expected, 1, STEP_ROWS))
    first = None
    for replica in range(header.n_replicas):
        group = file.create_group(place(name, replica))
        if first is None:
            first = group
            group.create_dataset("step", (0,), np.int64, maxshape=(None,), chunks=(step_rows,))
            group.create_dataset("time", (0,), np.float64, maxshape=(None,), chunks=(step_rows,)).attrs["unit"] = "fs"
        else:
            group["step"], group["time"] = first["step"], first["time"]
        value = group.create_dataset("value", (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape))
        value.attrs["unit"] = QUANTITIES[name].h5md_unit


def _append(file: h5py.File, name: str, steps: np.ndarray, times: np.ndarray, values: np.ndarray) -> None:
    """Add samples (n_replicas, n, ...) behind those that there are."""
    first = file[place(name, 0)]
    old, new = len(first["step"]), len(first["step"]) + len(steps)
    for key, column in (("step", steps), ("time", times)):
        first[key].resize(new, axis=0)
        first[key][old:] = column
    for replica, series in enumerate(values):
        value = file[place(name, replica)]["value"]
        value.resize(new, axis=0)
        value[old:] = series


def _blocks(dataset: h5py.Dataset, n_replicas: int) -> Iterator[slice]:
    row_bytes = n_replicas * max(int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize, 1)
    rows = max(MERGE_BYTES // row_bytes, 1)
    for first in range(0, len(dataset), rows):
        yield slice(first, min(first + rows, len(dataset)))
