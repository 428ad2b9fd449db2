"""Model files: HDF5 with plain arrays and one JSON text, readable without this package and without Keras.

    attributes   format "gmtensor-model", schema (integer), sha256 of everything else
    metadata     JSON: descriptor, heads, dtype, units of every output, package versions, provenance
    members/K    beta, feature_mean, feature_std, weights/L, biases/L, scale/HEAD, shift/HEAD, as in
                 gmcore.engine.settings.Member
    golden       numbers, positions (A), cell, pbc, total_charge of a small structure and, under outputs, what every
                 member predicted for it when the file was written

The checksum finds damaged bytes; the golden output, recomputed by `load_model`, finds a program that has changed its
mind about what the numbers mean. Files are written whole or not at all. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from ase import Atoms

from gmcore.engine.consistency import check_model, member_arrays
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.evaluator_base import EvaluatorBase
from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.files import atomic_hdf5
from gmcore.version import __version__

FORMAT = "gmtensor-model"
SCHEMA = 1
GOLDEN_TOLERANCE = {"float32": 1e-3, "float64": 1e-8, "tf32": 3e-2}  # relative to the largest magnitude of an output
ENERGY_TOLERANCE = {"float32": 1e-4, "float64": 1e-8, "tf32": 3e-2}  # relative to `_energy_scale`


class ModelFileError(GMError):
    """A file that is not a usable model."""


def write_model(
    path: str | os.PathLike,
    settings: ModelSettings,
    members: Sequence[Member],
    golden_atoms: Atoms | None = None,
) -> None:
    """Write a model file.

    Parameters
    ----------
    golden_atoms : small structure whose prediction is stored and recomputed on load, best one from the training data;
        a cluster of all species if not given.

    Raises
    ------
    GMError : settings and members do not fit together, or metadata that JSON cannot hold.
    WriteError : the disk is full or the folder cannot be written to; an older file is left as it was.
    """
    evaluator = Evaluator(settings, members)
    golden = _golden_input(settings, golden_atoms)
    golden |= {f"outputs/{key}": values for key, values in _evaluate(evaluator, golden).items()}
    arrays = {f"golden/{name}": array for name, array in golden.items()}
    for k, member in enumerate(members):
        arrays |= {f"members/{k}/{name}": _floating(array) for name, array in member_arrays(member).items()}
    metadata = _metadata_text(settings, evaluator.units)
    with atomic_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        file.attrs["sha256"] = checksum(metadata, arrays)
        file["metadata"] = metadata
        for name, array in arrays.items():
            file[name] = array


class ModelContent(NamedTuple):
    """What a model file holds; `golden` are the arrays of the group of that name."""

    path: Path
    settings: ModelSettings
    members: list[Member]
    golden: dict[str, np.ndarray]


def read_model(path: str | os.PathLike) -> tuple[ModelSettings, list[Member]]:
    """Settings and members of a model file; raises as `read_content`."""
    content = read_content(path)
    return content.settings, content.members


def read_content(path: str | os.PathLike) -> ModelContent:
    """Everything in a model file, read and checked once.

    Raises
    ------
    ModelFileError : missing, truncated, damaged or foreign file, or one with a newer schema.
    """
    settings, arrays = _read(path)
    members = []
    for k in range(_count(arrays, "members/")):
        own = _under(arrays, f"members/{k}/")
        layers = range(_count(own, "weights/")), range(_count(own, "biases/"))
        try:
            member = Member(
                beta=own["beta"],
                feature_mean=own["feature_mean"],
                feature_std=own["feature_std"],
                weights=[own[f"weights/{layer}"] for layer in layers[0]],
                biases=[own[f"biases/{layer}"] for layer in layers[1]],
                scale=_under(own, "scale/"),
                shift=_under(own, "shift/"),
            )
        except KeyError as error:
            raise ModelFileError(f"{path} is not complete: member {k} lacks {error}") from error
        members.append(member)
    try:
        check_model(settings, members)
    except GMError as error:
        raise ModelFileError(f"{path} does not hold a usable model: {error}") from error
    return ModelContent(Path(path), settings, members, _under(arrays, "golden/"))


def verify_golden(content: ModelContent, evaluator: EvaluatorBase) -> dict[str, float]:
    """Recompute the golden output of a file; largest deviation per output.

    Deviations are relative to the largest magnitude of the output. Those of the energy are relative to what the network
    contributes: beside energies of isolated atoms, which are thousands of eV, an error of 0.05 eV an atom looks like
    rounding.

    Raises
    ------
    ModelFileError : a deviation is larger than the precision explains.
    """
    path, settings, members, golden = content
    precisions = {settings.dtype, evaluator.dtype.name, *{evaluator.matmul} & {"tf32"}}
    deviations = {}
    try:
        outputs = _evaluate(evaluator, golden)
        stored = {key: golden[f"outputs/{key}"] for key in outputs}
    except KeyError as error:
        raise ModelFileError(f"{path} is not complete: its golden input or output lacks {error}") from error
    for key, expected in stored.items():
        difference = np.abs(outputs[key] - expected) if outputs[key].shape == expected.shape else np.array(np.inf)
        if key == "energy" and difference.shape:
            tolerances, scale = ENERGY_TOLERANCE, _energy_scale(settings, members, golden["numbers"], expected)
        else:
            tolerances, scale = GOLDEN_TOLERANCE, np.asarray(np.abs(expected).max(initial=0.0) or 1.0)
        tolerance = max(tolerances[precision] for precision in precisions)
        deviations[key] = float((difference / scale).max(initial=0.0))
        if not deviations[key] <= tolerance:
            raise ModelFileError(
                f"{path} no longer reproduces its golden output: {key} must agree within a relative {tolerance:g}, "
                f"it differs by {deviations[key]:.2g}"
            )
    return deviations


def _energy_scale(
    settings: ModelSettings, members: Sequence[Member], numbers: np.ndarray, energy: np.ndarray
) -> np.ndarray:
    """Energy that the network contributes to the golden structure of `numbers`, (n_members, 1) eV.

    That is E less the shifts of all atoms, or the sum of their scales where the atoms cancel; and never so little that
    the rounding of E, which is float64, would count.
    """
    name = next(head.name for head in settings.heads if head.kind == "energy")
    species = np.searchsorted(settings.descriptor.species, numbers)
    shift = np.array([[member.shift[name][species].sum(dtype=np.float64)] for member in members])
    scale = np.array([[np.abs(member.scale[name][species]).sum(dtype=np.float64)] for member in members])
    contribution = np.maximum(np.abs(energy - shift), scale)
    return np.maximum(contribution, 1e-6 * np.abs(energy) + np.finfo(float).tiny)


def checksum(metadata: str, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the metadata text and of name, type, shape and bytes of every array."""
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {little.dtype.str} {array.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def golden_cluster(settings: DescriptorSettings) -> Atoms:
    """Two atoms of every species, all within reach of each other, on a slightly disordered grid."""
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.repeat(settings.species, 2))
    side = int(np.ceil(len(numbers) ** (1 / 3)))
    sites = np.array(list(product(range(side), repeat=3)), float)[: len(numbers)]
    spacing = min(1.3, 0.5 * settings.r_max / side)
    return Atoms(numbers, spacing * (sites + 0.1 * rng.uniform(-1, 1, sites.shape)))


def _golden_input(settings: ModelSettings, atoms: Atoms | None) -> dict[str, np.ndarray]:
    atoms = golden_cluster(settings.descriptor) if atoms is None else atoms
    constants = [head.options.total_charge for head in settings.heads]
    charge = atoms.info.get("total_charge", next((c for c in constants if c is not None), 0.0))
    return {
        "numbers": atoms.numbers.astype(np.int32),
        "positions": atoms.positions.astype(np.float64),
        "cell": np.array(atoms.cell.array, np.float64),
        "pbc": atoms.pbc.astype(np.int32),
        "total_charge": np.array([charge], np.float64),
    }


def _evaluate(evaluator: EvaluatorBase, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of every member that the golden structure defines: the stress only where there is a cell."""
    batch = Batch.from_arrays(golden["positions"], golden["numbers"], golden["cell"], golden["pbc"] != 0)
    outputs = evaluator.evaluate(batch, evaluator.find_pairs(batch), total_charge=golden["total_charge"])
    if np.isnan(batch.volumes).any():
        outputs.pop("stress", None)
    return outputs


def _floating(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _metadata_text(settings: ModelSettings, units: dict[str, str]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        if isinstance(value, Path):
            return str(value)
        raise GMError(f"the metadata of a model must be JSON, got a {type(value).__name__} in them")

    content = asdict(settings) | {
        "heads": [head.to_dict() for head in settings.heads],
        "units": units,
        "written_by": {"gmtensor": __version__, "numpy": np.__version__},
    }
    return json.dumps(content, default=plain, indent=1, sort_keys=True)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """The file, open and of a schema that can be read."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"model file {path} does not exist")
    try:
        if not h5py.is_hdf5(path):
            raise ModelFileError(f"{path} is not a gmtensor model: it is not HDF5, or its beginning is lost")
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or "metadata" not in file:
                raise ModelFileError(f"{path} is HDF5, but not a gmtensor model")
            schema = int(file.attrs.get("schema", 0))
            if not 1 <= schema <= SCHEMA:
                raise ModelFileError(
                    f"{path} has schema {schema}, this version of gmtensor ({__version__}) reads up to {SCHEMA}: "
                    "update gmtensor"
                )
            yield file
    except ModelFileError:
        raise
    except GMError as error:
        raise ModelFileError(f"{path} does not hold a usable model: {error}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is truncated or damaged: {' '.join(str(error).split())}") from error


def _read(path: str | os.PathLike) -> tuple[ModelSettings, dict[str, np.ndarray]]:
    """Settings and every array by its path in the file, checksum verified."""
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != "metadata":
            arrays[name] = item[()]

    with _opened(path) as file:
        file.visititems(collect)
        text = file["metadata"].asstr()[()]
        if checksum(text, arrays) != file.attrs["sha256"]:
            raise ModelFileError(f"{path} is damaged: its content does not have the checksum that was stored with it")
        content = json.loads(text)
        descriptor = content["descriptor"] | {"species": tuple(content["descriptor"]["species"])}
        settings = ModelSettings(
            descriptor=DescriptorSettings(**descriptor),
            heads=tuple(HeadSettings.from_dict(head) for head in content["heads"]),
            dtype=content["dtype"],
            provenance=content["provenance"],
        )
    return settings, arrays


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _count(arrays: dict[str, np.ndarray], prefix: str) -> int:
    """How many different names follow a prefix."""
    return len({name.removeprefix(prefix).split("/")[0] for name in arrays if name.startswith(prefix)})
