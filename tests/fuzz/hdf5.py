"""Damage of HDF5 files by structure: other shapes, types and kinds of objects, links, attributes, claimed sizes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import h5py
import numpy as np

from fuzz.arrays import changed_array
from fuzz.mutations import Unreadable
from gmcore.inputs.seal import seal_file

ATTRIBUTES = (0, -1, 10**18, 1e308, np.nan, "", "x", "x" * 5000, b"\xff\xfe", [], [1, 2, 3], ["a", "b"], 2**63 - 1)
METADATA = ("{}", "[]", "null", "", "[" * 3000, '{"descriptor": 1}', '{"descriptor": {"species": 5}}', "1e999", '"')


def damaged_hdf5(content: bytes, structure: str, rng: Random, target: Path) -> tuple[bytes, str]:
    """Change one object of an HDF5 file; mostly with checksums that are right again, as if it had been written so."""
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    try:
        with h5py.File(target, "r+") as file:
            words = _damage(file, rng)
            if "metadata" in file and "sha256" in file.attrs and rng.random() < 0.8:
                with suppress(Exception):  # whatever was made cannot be in a file with a checksum
                    _sign(file)
    except Exception as error:  # bytes damaged before
        raise Unreadable from error
    if rng.random() < 0.7:
        _seal(target)
    return target.read_bytes(), words


def _damage(file: h5py.File, rng: Random) -> str:
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(sorted(names))
    item = file[name]
    what = rng.randrange(10)
    if what == 0:
        del file[name]
        return f"{name} removed"
    if what == 1:
        other = rng.choice((*names, "new", "offsets", "labels/energy", "R"))
        file.move(name, f"{other}_moved")
        return f"{name} renamed to {other}_moved"
    if what == 2:
        return _linked(file, name, rng)
    if what <= 4:
        holders = [file, *(file[each] for each in names)]
        return _attribute(rng.choice(holders), rng)
    if isinstance(item, h5py.Group):
        attributes = dict(item.attrs)
        del file[name]
        file[name] = np.zeros(rng.choice((0, 1, 3)))
        file[name].attrs.update(attributes)
        return f"{name} is a data set instead of a group"
    attributes = dict(item.attrs)
    if what == 5:
        del file[name]
        file.create_group(name).attrs.update(attributes)
        return f"{name} is a group instead of a data set"
    if what == 6:
        shape = rng.choice(((10**9,), (2**36,), (10**9, 3), (5, 10**8, 3), (2**40, 3, 3)))
        dtype = rng.choice(("f8", "i4"))
        name = rng.choice((name, f"{name.rpartition('/')[0]}/unused".lstrip("/"), "labels/energy"))
        if name in file:
            del file[name]
        file.create_dataset(name, shape, dtype, chunks=True).attrs.update(attributes)
        return f"{name} claims the shape {shape}"
    if what == 7 and name == "metadata":
        text = rng.choice(METADATA)
        del file[name]
        file[name] = text
        return f"metadata is {text[:30]!r}"
    if item.dtype.kind not in "iufb":
        text = item[()]
        del file[name]
        file[name] = rng.choice((3.0, np.zeros(3), np.array([b"a", b"b"]), text[: len(text) // 2]))
        return f"{name} is no text, or half of it"
    array, words = changed_array(item[()], rng)
    del file[name]
    if array.dtype.kind in "OUM":
        array = np.array(["a"] * max(array.size, 1), dtype=object).reshape(array.shape if array.size else (1,))
        file.create_dataset(name, data=array, dtype=h5py.string_dtype())
    else:
        file[name] = array
    file[name].attrs.update(attributes)
    return f"{name}: {words}"


def _linked(file: h5py.File, name: str, rng: Random) -> str:
    where = rng.choice(("/", f"/{name}", "/nowhere", "/loop"))
    del file[name]
    if rng.random() < 0.3:
        file[name] = h5py.ExternalLink("/dev/zero", "/") if rng.random() < 0.5 else h5py.ExternalLink("other.h5", "/a")
        return f"{name} is a link to another file"
    if where == "/" and rng.random() < 0.5:
        file[name] = file["/"]
        return f"{name} is the file itself"
    file[name] = h5py.SoftLink(where)
    return f"{name} is a link to {where}"


def _attribute(item: h5py.Group | h5py.Dataset, rng: Random) -> str:
    key = rng.choice((*item.attrs, "format", "unit"))
    if key in item.attrs and rng.random() < 0.3:
        del item.attrs[key]
        return f"attribute {key} of {item.name} removed"
    value = rng.choice(ATTRIBUTES)
    with suppress(TypeError, ValueError):
        item.attrs[key] = value
    return f"attribute {key} of {item.name} is now {str(value)[:30]!r}"


def _sign(file: h5py.File) -> None:
    from gmcore.model_file import checksum

    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != "metadata":
            if item.size > 10**7:
                raise ValueError(name)
            arrays[name] = item[()]

    file.visititems(collect)
    file.attrs["sha256"] = checksum(file["metadata"].asstr()[()], arrays)


def _seal(path: Path) -> None:
    """Append the checksum of the bytes, which writing with HDF5 has cut off."""
    seal_file(path)
