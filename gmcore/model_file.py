"""Model files: HDF5 with plain arrays and one JSON text, readable without this package and without Keras.

    attributes   format "gmtensor-model", schema (integer), sha256 of everything else
    metadata     JSON: descriptor, heads, dtype, units of every output, calibrations, package versions, provenance
    members/K    beta, feature_mean, feature_std, weights/L, biases/L, scale/HEAD, shift/HEAD, and for a single model
                 draws, as in gmcore.engine.settings.Member
    environments the training data in the space of features, as in gmcore.uncertainty.environments
    golden       numbers, positions (A), cell, pbc, total_charge of a small structure and, under outputs, what every
                 member predicted for it when the file was written

The seal at the end of the file (`gmcore.inputs.seal`) is verified before anything is parsed. The checksum detects
damage in files without a seal, such as those of earlier versions. The golden output, which `load_model` recomputes,
detects a program that interprets the numbers differently. Files are written whole or not at all. Nothing is
ever unpickled.
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
from typing import Annotated, Any, Literal, NamedTuple

import h5py
import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmcore.engine.consistency import check_model, member_arrays
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.evaluator_base import EvaluatorBase
from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.errors import DamagedFileError, GMError
from gmcore.files import atomic_hdf5
from gmcore.inputs.claims import check_claim
from gmcore.inputs.hdf5 import has_signature, open_hdf5, read_array
from gmcore.inputs.hdf5_walk import claimed
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.environments import TrainingEnvironments
from gmcore.uncertainty.uncertainty import Uncertainty
from gmcore.version import __version__

FORMAT = "gmtensor-model"
SCHEMA = 2
"""Files of schema 1 have no draws, environments and calibrations."""
GOLDEN_TOLERANCE = {"float32": 1e-3, "float64": 1e-8, "tf32": 3e-2}  # relative to the largest magnitude of an output
ENERGY_TOLERANCE = {"float32": 1e-4, "float64": 1e-8, "tf32": 3e-2}  # relative to `_energy_scale`


class ModelFileError(GMError):
    """A file that is not a usable model."""


def write_model(
    path: str | os.PathLike,
    settings: ModelSettings,
    members: Sequence[Member],
    golden_atoms: Atoms | None = None,
    uncertainty: Uncertainty | None = None,
) -> None:
    """Write a model file.

    Parameters
    ----------
    golden_atoms : small structure whose prediction is stored, and recomputed when the file is loaded. A structure from
        the training data is best; a cluster of all species is used if not given.
    uncertainty : what is known of the errors of the model.

    Raises
    ------
    GMError : settings and members do not fit together, or JSON cannot hold the metadata.
    WriteError : the disk is full or the folder cannot be written to; an older file is left as it was.
    """
    evaluator = Evaluator(settings, members)
    golden = _golden_input(settings, golden_atoms)
    golden |= {f"outputs/{key}": values for key, values in _evaluate(evaluator, golden).items()}
    arrays = {f"golden/{name}": array for name, array in golden.items()}
    for k, member in enumerate(members):
        arrays |= {f"members/{k}/{name}": _floating(array) for name, array in member_arrays(member).items()}
    uncertainty = uncertainty or Uncertainty()
    if uncertainty.environments is not None:
        arrays |= {f"environments/{name}": array for name, array in uncertainty.environments.arrays().items()}
    metadata = _metadata_text(settings, evaluator.units, uncertainty)
    with atomic_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        file.attrs["sha256"] = checksum(metadata, arrays)
        file["metadata"] = metadata
        for name, array in arrays.items():
            file[name] = array


class ModelContent(NamedTuple):
    """The content of a model file; `golden` has the arrays of the group of that name."""

    path: Path
    settings: ModelSettings
    members: list[Member]
    golden: dict[str, np.ndarray]
    uncertainty: Uncertainty


def read_model(path: str | os.PathLike) -> tuple[ModelSettings, list[Member]]:
    """Return the settings and members of a model file.

    Raises
    ------
    ModelFileError : as for `read_content`.
    """
    content = read_content(path)
    return content.settings, content.members


def read_content(path: str | os.PathLike) -> ModelContent:
    """Return everything in a model file, read and checked once.

    Raises
    ------
    ModelFileError : the file is missing, truncated, damaged or foreign, or has a newer schema.
    """
    settings, calibrations, arrays = _read(path)
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
                draws=own.get("draws"),
            )
        except KeyError as error:
            raise ModelFileError(
                f"{path} is incomplete: member {k} has no {error}; use another copy of the file"
            ) from error
        members.append(member)
    try:
        check_model(settings, members)
        environments = _under(arrays, "environments/")
        sizes = len(settings.descriptor.species), len(members[0].feature_mean)
        known = TrainingEnvironments.from_arrays(environments, *sizes) if environments else None
    except GMError as error:
        raise ModelFileError(f"{path} does not hold a usable model: {error}") from error
    uncertainty = Uncertainty(calibrations, known)
    return ModelContent(Path(path), settings, members, _under(arrays, "golden/"), uncertainty)


def verify_golden(content: ModelContent, evaluator: EvaluatorBase) -> dict[str, float]:
    """Recompute the golden output of a file and return the largest deviation of each output.

    Deviations are relative to the largest magnitude of the output. Those of the energy are relative to what the network
    contributes: beside energies of isolated atoms, which are thousands of eV, an error of 0.05 eV an atom looks like
    rounding.

    Raises
    ------
    ModelFileError : a deviation is larger than the precision can explain.
    """
    path, settings, members, golden, _ = content
    precisions = {settings.dtype, evaluator.dtype.name, *{evaluator.matmul} & {"tf32"}}
    deviations = {}
    try:
        _check_golden(golden, settings)
        outputs = _evaluate(evaluator, golden)
        stored = {key: golden[f"outputs/{key}"] for key in outputs}
    except KeyError as error:
        raise ModelFileError(
            f"{path} is incomplete: its golden input or output has no {error}; use another copy of the file"
        ) from error
    except GMError as error:
        raise ModelFileError(f"{path} does not hold a usable model: in its golden structure, {error}") from error
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
                f"but differs by {deviations[key]:.2g}: use the version of gmtensor that wrote the file"
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
    """Return the SHA-256 of the metadata text and of name, type, shape and bytes of every array."""
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {little.dtype.str} {array.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def model_identity(settings: ModelSettings, members: Sequence[Member]) -> str:
    """SHA-256 of everything that decides what a model predicts, but for its errors.

    Provenance with its dates and paths, versions, golden outputs, calibrations and draws have no part in it: a model
    that is written again keeps its identity.
    """
    content = {
        "descriptor": asdict(settings.descriptor),
        "heads": [head.to_dict() for head in settings.heads],
        "dtype": settings.dtype,
    }
    arrays = {
        f"{k}/{name}": _floating(array)
        for k, member in enumerate(members)
        for name, array in member_arrays(member).items()
        if name != "draws"
    }
    return checksum(json.dumps(content, default=_plain, sort_keys=True), arrays)


def golden_cluster(settings: DescriptorSettings) -> Atoms:
    """Return two atoms of every species, all within the cutoff of each other, on a slightly disordered grid."""
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


def _check_golden(golden: dict[str, np.ndarray], settings: ModelSettings) -> None:
    """Refuse a golden structure that has other arrays than those that `_golden_input` makes."""
    n_atoms = len(np.atleast_1d(golden["numbers"]))
    for name, shape, kinds in (
        ("numbers", (n_atoms,), "iu"),
        ("positions", (n_atoms, 3), "f"),
        ("cell", (3, 3), "f"),
        ("pbc", (3,), "iu"),
        ("total_charge", (1,), "f"),
    ):
        array = golden[name]
        if array.shape != shape or array.dtype.kind not in kinds or not np.isfinite(array).all():
            raise GMError(f"{name} must be finite numbers of shape {shape}, got {array.dtype} of shape {array.shape}")
    unknown = set(golden["numbers"].tolist()) - set(settings.descriptor.species)
    if unknown:
        raise GMError(f"its elements must be those of the model, got the atomic numbers {sorted(unknown)[:5]} too")


def _evaluate(evaluator: EvaluatorBase, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of every member for the golden structure; a stress only if it has a cell."""
    batch = Batch.from_arrays(golden["positions"], golden["numbers"], golden["cell"], golden["pbc"] != 0)
    outputs = evaluator.evaluate(batch, evaluator.find_pairs(batch), total_charge=golden["total_charge"])
    if np.isnan(batch.volumes).any():
        outputs.pop("stress", None)
    return outputs


def _floating(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _plain(value: Any) -> Any:
    """Return a value of the metadata that JSON does not know as one that it knows."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise GMError(f"the metadata of a model must be values that JSON can hold, got one of type {type(value).__name__}")


def _metadata_text(settings: ModelSettings, units: dict[str, str], uncertainty: Uncertainty) -> str:
    content = asdict(settings) | {
        "heads": [head.to_dict() for head in settings.heads],
        "units": units,
        "calibrations": {name: asdict(entry) for name, entry in uncertainty.calibrations.items()},
        "written_by": {"gmtensor": __version__, "numpy": np.__version__},
    }
    return json.dumps(content, default=_plain, indent=1, sort_keys=True)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield the open file, after checking that its schema can be read."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"model file {path} does not exist")
    try:
        if not has_signature(path):
            raise ModelFileError(f"{path} is not a gmtensor model: it is not an HDF5 file, or its beginning is missing")
        with open_hdf5(path) as file:
            if not np.array_equal(file.attrs.get("format"), FORMAT) or "metadata" not in file:
                raise ModelFileError(f"{path} is an HDF5 file, but not a gmtensor model")
            schema = int(file.attrs.get("schema", 0))
            if not 1 <= schema <= SCHEMA:
                raise ModelFileError(
                    f"{path} has schema {schema}, but this version of gmtensor ({__version__}) reads up to {SCHEMA}: "
                    "update gmtensor"
                )
            yield file
    except ModelFileError:
        raise
    except DamagedFileError as error:
        raise ModelFileError(str(error)) from error
    except GMError as error:
        raise ModelFileError(f"{path} does not hold a usable model: {error}") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ModelFileError(f"{path} is truncated or damaged: {' '.join(str(error).split())}") from error


class _Part(BaseModel):
    """A part of the metadata; keys that this version does not use may be there."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Descriptor(_Part):
    species: list[Annotated[int, Field(ge=1, le=118)]]
    r_max: float = Field(gt=0.0)
    r_min: float
    n_basis: int = Field(ge=1)
    n_radial: int = Field(ge=1)


class _Head(_Part):
    name: str
    kind: str
    width: int
    unit: str
    options: dict[str, Any]


class _Calibration(_Part):
    source: Literal["committee", "last_layer"]
    factor: float = Field(gt=0.0)
    factor_error: float = Field(ge=0.0)
    floor: float = Field(ge=0.0)
    n_structures: int = Field(ge=1)
    coverage_raw: Annotated[tuple[float, float], Field(strict=False)]
    coverage: Annotated[tuple[float, float], Field(strict=False)]


class _Metadata(_Part):
    """What the JSON text must hold."""

    descriptor: _Descriptor
    heads: list[_Head]
    dtype: Literal["float32", "float64"]
    provenance: dict[str, Any]
    calibrations: dict[str, _Calibration] = {}


def _read(path: str | os.PathLike) -> tuple[ModelSettings, dict[str, Calibration], dict[str, np.ndarray]]:
    """Return settings, calibrations, and every array by its path in the file, after checking the checksum."""
    items: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            items[name] = item

    with _opened(path) as file:
        file.visititems(collect)
        check_claim(path, "the content", sum(claimed(item) for item in items.values()))
        metadata = items.pop("metadata", None)
        if metadata is None or metadata.shape != () or h5py.check_string_dtype(metadata.dtype) is None:
            raise ModelFileError(f"{path} is HDF5, but not a gmtensor model: its metadata must be one text")
        text = metadata.asstr()[()]
        arrays = {name: read_array(item, path, name) for name, item in items.items()}
        if checksum(text, arrays) != file.attrs["sha256"]:
            raise ModelFileError(
                f"{path} is damaged: its content does not match its checksum; use another copy of the file"
            )
        settings, calibrations = _settings(path, text)
    return settings, calibrations, arrays


def _settings(path: str | os.PathLike, text: str) -> tuple[ModelSettings, dict[str, Calibration]]:
    """Settings and calibrations that the metadata of a file hold, checked to be what the program expects."""
    try:
        content = _Metadata.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole text"
        raise ModelFileError(
            f"{path} does not hold a usable model: wrong metadata in {place[:200]}: {first['msg'][:200]}"
        ) from error
    descriptor = content.descriptor.model_dump() | {"species": tuple(content.descriptor.species)}
    settings = ModelSettings(
        descriptor=DescriptorSettings(**descriptor),
        heads=tuple(HeadSettings.from_dict(head.model_dump()) for head in content.heads),
        dtype=content.dtype,
        provenance=content.provenance,
    )
    return settings, {name: Calibration(**entry.model_dump()) for name, entry in content.calibrations.items()}


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _count(arrays: dict[str, np.ndarray], prefix: str) -> int:
    """Return how many different names follow a prefix."""
    return len({name.removeprefix(prefix).split("/")[0] for name in arrays if name.startswith(prefix)})
