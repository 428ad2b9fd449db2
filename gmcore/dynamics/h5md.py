"""The layout of trajectory files: H5MD 1.1 (de Buyl, Colberg, Hofling, Comput. Phys. Commun. 2014, 185, 1546).

    h5md/                        version, author, creator, modules/units
    particles/replica_000/       species, mass, box/edges, position, velocity
    observables/replica_000/     energies, temperature, deviations, grades, D tensors, positions of molecules
    parameters/                  time step, ensemble, seeds and target temperatures, atoms of the molecules

A quantity that changes in time is a group with step, time and value. Replicas share steps and times by hard links.
Units are given by the `unit` attributes of H5MD's module for units, which writes A/fs as "Angstrom fs-1". Each file is
a complete H5MD file. A run writes one file per chunk; `merge_segments` joins them and needs memory for one block only.

Not supported: a changing number of atoms, and positions wrapped into the cell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gmcore.errors import GMError
from gmcore.files import WriteError, atomic_hdf5, streamed_hdf5
from gmcore.inputs.claims import check_claim
from gmcore.inputs.hdf5 import open_hdf5, read_array
from gmcore.inputs.hdf5_walk import claimed
from gmcore.quantities import BY_NAME
from gmcore.version import __version__

if TYPE_CHECKING:
    import h5py

MERGE_BYTES = 64 * 2**20
"""Bytes: memory for one block of a quantity while files are joined."""

BLOCK_BYTES = 2**18
"""Bytes: largest block of a dataset on the disk."""

STEP_ROWS = 4096
"""Largest number of samples in a block."""


class TrajectoryError(GMError):
    """A trajectory cannot be read or written."""


class Recorded(NamedTuple):
    """A quantity of a trajectory.

    Attributes
    ----------
    shape : shape of one sample; sizes may be names, see `Header.sizes`.
    unit : unit in gmtensor's spelling; empty for a number without one.
    """

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
    "extrapolation": Recorded((), ""),
    "d_tensor": Recorded(("n_molecules", 3, 3), BY_NAME["d_tensor"].unit),
    "d_tensor_members": Recorded(("n_members", "n_molecules", 3, 3), BY_NAME["d_tensor"].unit),
    "d_tensor_extrapolation": Recorded(("n_molecules",), ""),
    "molecule_position": Recorded(("n_molecules", "n_molecule_atoms", 3), "A"),
}
QUANTITIES = PARTICLES | OBSERVABLES


@dataclass(frozen=True, eq=False)
class Header:
    """The data of a trajectory that do not change in time.

    Attributes
    ----------
    numbers : (n_atoms,) atomic numbers, the same for all replicas.
    masses : (n_atoms,) amu.
    pbc : (3,) bool.
    time_step : fs.
    ensemble : "nve", "langevin", "nose_hoover" or "npt"; "lammps" for a run of LAMMPS that is not nve.
    temperatures : (n_replicas,) target temperatures, K; NaN for nve.
    seeds : (n_replicas,) seeds of the random numbers.
    molecule_numbers : (n_molecule_atoms,) atomic numbers of a molecule, in the order that the D model expects; None
        if no molecules are recorded.
    molecules : (n_molecules, n_molecule_atoms) indices of the atoms of each molecule; None if none are recorded.
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
        """Number of atoms of a replica."""
        return len(self.numbers)

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len(self.seeds)

    def sizes(self) -> dict[str, int]:
        """Named sizes in the shapes of quantities; the number of committee members is not known here."""
        sizes = {"n_atoms": self.n_atoms}
        if self.molecules is not None:
            sizes["n_molecules"], sizes["n_molecule_atoms"] = np.shape(self.molecules)
        return sizes


def replica_name(replica: int) -> str:
    """Name of the HDF5 groups of a replica.

    >>> replica_name(3)
    'replica_003'
    """
    return f"replica_{replica:03d}"


def group_path(name: str, replica: int) -> str:
    """Path of the HDF5 group of a quantity of a replica."""
    if name == "box":
        return f"particles/{replica_name(replica)}/box/edges"
    return f"{'particles' if name in PARTICLES else 'observables'}/{replica_name(replica)}/{name}"


def write_segment(path: str | Path, header: Header, data: Mapping[str, tuple[Any, Any]]) -> None:
    """Write a trajectory file, either completely or not at all.

    Parameters
    ----------
    path : file to write.
    header : the data that do not change in time.
    data : name of `QUANTITIES` -> (steps (n,), values (n_replicas, n, ...)). Steps increase and count from the start of
        the production. Periodic systems need the box at the steps of the positions; other systems have no box.

    Raises
    ------
    TrajectoryError : an unknown quantity, a wrong shape, or steps that do not increase.
    WriteError : the disk is full or the folder is not writable.
    """
    arrays = {name: _checked(header, name, *data[name]) for name in data}
    if header.pbc.any() != ("box" in arrays) and "position" in arrays:
        raise TrajectoryError(
            f"positions of a periodic system need a box, and other systems have none, got pbc {header.pbc.tolist()} "
            f"{'with' if 'box' in arrays else 'without'} a box"
        )
    if "box" in arrays and not np.array_equal(arrays["box"][0], arrays.get("position", ((), ()))[0]):
        raise TrajectoryError("the box must be given at the same steps as the positions, got other steps")
    with atomic_hdf5(path) as file:
        _write_frame(file, header)
        for name, (steps, values) in arrays.items():
            _create(file, header, name, values.shape[2:], values.dtype, len(steps))
            _append(file, name, steps, steps * header.time_step, values)


def merge_segments(target: str | Path, header: Header, sources: Sequence[Path], n_segments: int) -> None:
    """Join the trajectory files of a run into one.

    Parameters
    ----------
    target : file to write; may be the first of the sources.
    header : the data that do not change in time.
    sources : files in the order of time.
    n_segments : number of chunks of the run that the result contains; a reader then ignores the files of these chunks.

    Raises
    ------
    TrajectoryError : the disk has no room for the joined file.
    WriteError : the file cannot be written, because a quota is used up, for example; the sources are unchanged.
    """
    needed, folder = sum(source.stat().st_size for source in sources), Path(target).parent
    free = shutil.disk_usage(folder).free
    if needed * 1.05 > free:
        raise TrajectoryError(
            f"joining the trajectory needs {needed * 1.05 / 2**20:.0f} MiB on the disk of {folder}, but only "
            f"{free / 2**20:.0f} MiB are free: free some space and run the same command again. No samples are lost; "
            "the files of the chunks are complete and can be read as they are"
        )
    try:
        with streamed_hdf5(target) as (file, check):
            _write_frame(file, header)
            file["parameters"].attrs["n_segments"] = n_segments
            for source in sources:
                with open_hdf5(source) as part:
                    _join(file, header, part, len(sources), check)
    except WriteError as error:
        raise WriteError(
            f"{error}. No samples are lost, the files of the chunks are complete: make room for a larger file and run "
            "the same command again"
        ) from error


def _join(file: h5py.File, header: Header, part: h5py.File, n_parts: int, check: Callable[[], None]) -> None:
    """Append the samples of one of `n_parts` files; `check` is called after each piece."""
    for name in names_in(part):
        groups = [recorded_group(part, header, name, replica) for replica in range(header.n_replicas)]
        if group_path(name, 0) not in file:
            values = groups[0]["value"]
            _create(file, header, name, values.shape[1:], values.dtype, len(values) * n_parts)
        for rows in _blocks(groups[0]["value"], header.n_replicas):
            values = np.stack([group["value"][rows] for group in groups])
            _append(file, name, groups[0]["step"][rows], groups[0]["time"][rows], values)
            check()


def names_in(file: h5py.File) -> tuple[str, ...]:
    """Names of the quantities in a file, in the order of `QUANTITIES`."""
    return tuple(name for name in QUANTITIES if group_path(name, 0) in file)


def read_header(file: h5py.File) -> Header:
    """Read the data of a trajectory file that do not change in time."""
    fixed, first, path = file["parameters"], file[f"particles/{replica_name(0)}"], file.filename
    molecules = read_array(fixed["molecules"], path, "parameters/molecules") if "molecules" in fixed else None
    boundary = np.asarray(first["box"].attrs["boundary"]).tolist()
    header = Header(
        numbers=read_array(first["species"], path, "species"),
        masses=read_array(first["mass"], path, "mass"),
        pbc=np.array([side == "periodic" for side in boundary]),
        time_step=float(fixed.attrs["time_step"]),
        ensemble=str(fixed.attrs["ensemble"]),
        temperatures=read_array(fixed["temperatures"], path, "parameters/temperatures"),
        seeds=read_array(fixed["seeds"], path, "parameters/seeds"),
        molecule_numbers=(
            read_array(fixed["molecule_species"], path, "parameters/molecule_species")
            if molecules is not None
            else None
        ),
        molecules=molecules,
    )
    _check_header(header)
    return header


def _check_header(header: Header) -> None:
    """Refuse a header that no run writes.

    Raises
    ------
    TrajectoryError : wrong shapes or types, atomic numbers that do not exist, or molecules of atoms that do not exist.
    """
    n_atoms, n_replicas = header.numbers.size, header.seeds.size
    parts: list[tuple[str, np.ndarray, tuple[int, ...], str]] = [
        ("species", header.numbers, (n_atoms,), "iu"),
        ("mass", header.masses, (n_atoms,), "f"),
        ("boundary", header.pbc, (3,), "b"),
        ("seeds", header.seeds, (n_replicas,), "iu"),
        ("temperatures", header.temperatures, (n_replicas,), "f"),
    ]
    known = [header.numbers]
    if header.molecules is not None and header.molecule_numbers is not None:
        n_molecule_atoms = header.molecule_numbers.size
        parts.append(("molecule_species", header.molecule_numbers, (n_molecule_atoms,), "iu"))
        parts.append(("molecules", header.molecules, (len(np.atleast_1d(header.molecules)), n_molecule_atoms), "iu"))
        known.append(header.molecule_numbers)
    for name, array, shape, kinds in parts:
        if array.shape != shape or array.dtype.kind not in kinds:
            raise TrajectoryError(f"{name} must have shape {shape}, got {array.dtype} of shape {array.shape}")
    if not n_atoms or not n_replicas or not (np.isfinite(header.time_step) and header.time_step > 0.0):
        raise TrajectoryError("there must be atoms, replicas and a positive time step")
    if not all(((numbers > 0) & (numbers < 119)).all() for numbers in known):
        raise TrajectoryError("the species must be atomic numbers from 1 to 118")
    if header.molecules is not None and not ((header.molecules >= 0) & (header.molecules < n_atoms)).all():
        raise TrajectoryError(f"the atoms of the molecules must be indices from 0 to {n_atoms - 1}")


def recorded_group(file: h5py.File, header: Header, name: str, replica: int) -> h5py.Group:
    """Return the group of a quantity of a replica, with datasets step, time and value that fit the header.

    Raises
    ------
    TrajectoryError : something is missing, has another shape, or claims more memory than the file can account for.
    """
    import h5py

    where = group_path(name, replica)
    group = file.get(where)
    if not isinstance(group, h5py.Group):
        raise TrajectoryError(f"{file.filename} has no {where}")
    items = {key: group.get(key) for key in ("step", "time", "value")}
    sizes, n = header.sizes(), None
    for key, kinds in (("step", "iu"), ("time", "f"), ("value", "f")):
        item = items[key]
        if not isinstance(item, h5py.Dataset) or not item.shape or item.dtype.kind not in kinds:
            raise TrajectoryError(f"{where}/{key} of {file.filename} must be an array of numbers")
        n = item.shape[0] if n is None else n
        sample = QUANTITIES[name].shape if key == "value" else ()
        shape = (n, *(sizes.get(size, size) if isinstance(size, str) else size for size in sample))
        fits = len(shape) == len(item.shape) and all(isinstance(a, str) or a == b for a, b in zip(shape, item.shape))
        if not fits:
            raise TrajectoryError(f"{where}/{key} of {file.filename} must have shape {shape}, got {item.shape}")
        check_claim(file.filename, f"{where}/{key}", claimed(item))
    return group


def _checked(header: Header, name: str, steps: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check one quantity; return steps as int64 and values as float64, or as float32 if they came so."""
    if name not in QUANTITIES:
        raise TrajectoryError(f"the quantities of a trajectory are {', '.join(QUANTITIES)}; {name!r} is not among them")
    steps, values = np.asarray(steps, np.int64), np.asarray(values)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if steps.ndim != 1 or (np.diff(steps) <= 0).any() or (steps < 0).any():
        raise TrajectoryError(f"the steps of {name} must increase and not be negative, got {steps.tolist()[:10]}")
    sizes = header.sizes()
    sample = (sizes.get(size, size) if isinstance(size, str) else size for size in QUANTITIES[name].shape)
    shape = (header.n_replicas, len(steps), *sample)
    fits = len(shape) == values.ndim and all(
        a == b or isinstance(a, str) for a, b in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise TrajectoryError(f"{name} must have shape {shape}, got {values.shape}".replace("'", ""))
    return steps, values


def _write_frame(file: h5py.File, header: Header) -> None:
    """Write everything except the quantities that change in time."""
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
    """Create empty, extendable datasets of a quantity for every replica; `n_expected` limits their block size."""
    row_bytes = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
    rows = int(np.clip(min(BLOCK_BYTES // row_bytes, n_expected), 1, STEP_ROWS))
    step_rows = int(np.clip(n_expected, 1, STEP_ROWS))
    first = None
    for replica in range(header.n_replicas):
        group = file.create_group(group_path(name, replica))
        if first is None:
            first = group
            group.create_dataset("step", (0,), np.int64, maxshape=(None,), chunks=(step_rows,))
            group.create_dataset("time", (0,), np.float64, maxshape=(None,), chunks=(step_rows,)).attrs["unit"] = "fs"
        else:
            group["step"], group["time"] = first["step"], first["time"]
        value = group.create_dataset("value", (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape))
        if QUANTITIES[name].unit:
            value.attrs["unit"] = QUANTITIES[name].h5md_unit


def _append(file: h5py.File, name: str, steps: np.ndarray, times: np.ndarray, values: np.ndarray) -> None:
    """Append samples (n_replicas, n, ...) to a quantity."""
    first = file[group_path(name, 0)]
    old, new = len(first["step"]), len(first["step"]) + len(steps)
    for key, column in (("step", steps), ("time", times)):
        first[key].resize(new, axis=0)
        first[key][old:] = column
    for replica, series in enumerate(values):
        value = file[group_path(name, replica)]["value"]
        value.resize(new, axis=0)
        value[old:] = series


def _blocks(dataset: h5py.Dataset, n_replicas: int) -> Iterator[slice]:
    """Yield the rows of a dataset in blocks of at most `MERGE_BYTES` for all replicas together."""
    row_bytes = n_replicas * max(int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize, 1)
    rows = max(MERGE_BYTES // row_bytes, 1)
    for first in range(0, len(dataset), rows):
        yield slice(first, min(first + rows, len(dataset)))
