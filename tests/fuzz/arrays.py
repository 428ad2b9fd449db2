"""Damage of npz files by structure: arrays of other shapes, types and values, headers that lie, bombs."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random

import numpy as np

from fuzz.mutations import Unreadable

TYPES = ("f2", "f4", "i1", "i8", "u8", "c16", "?", "U5", "S3", "M8[s]", "O", "V8", "i4,f8", ">f8", "f8")
FLOATS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, -1.0, 0.0, 1e6)
INTEGERS = (0, -1, 1, 119, 200, 2**31 - 1, 2**32 + 6, 2**62, -(2**62))
CLAIMS = ((10**9,), (10**12, 3), (2**40, 0), (-1,), (-1, 3), (2**62, 2**62), (10**9, 10**9, 0), (3.5,), ("a",), 5)
BOMB = 1_500_000_000


def damaged_npz(content: bytes, structure: str, rng: Random, target: Path) -> tuple[bytes, str]:
    """Change one array of an npz file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise Unreadable from error
    if not arrays:
        raise Unreadable
    name = rng.choice(sorted(arrays))
    what = rng.randrange(8)
    if what == 0:
        del arrays[name]
        words = f"{name} removed"
    elif what == 1:
        arrays[rng.choice(("", "a/b", "../x", "N", "R", "cell"))] = arrays.pop(name)
        words = f"{name} renamed"
    elif what == 2:
        other = rng.choice(sorted(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
        words = f"{name} and {other} swapped"
    elif what == 3:
        return _forged(arrays, name, rng)
    elif what == 4 and rng.random() < 0.3:
        return _bomb(arrays, rng.choice((name, "unused")))
    else:
        arrays[name], words = changed_array(arrays[name], rng)
        words = f"{name}: {words}"
    stream = io.BytesIO()
    try:
        np.savez_compressed(stream, **{key or "_": array for key, array in arrays.items()})
    except Exception as error:
        raise Unreadable from error
    return stream.getvalue(), words


def changed_array(array: np.ndarray, rng: Random) -> tuple[np.ndarray, str]:
    """Return an array with another type, shape or value, and what was done."""
    array = np.array(array)
    what = rng.randrange(4)
    if what == 0:
        kind = rng.choice(TYPES)
        try:
            with np.errstate(all="ignore"):
                return array.astype(np.dtype(kind)), f"type {kind}"
        except (ValueError, TypeError):
            return np.zeros(array.shape, np.dtype(kind)), f"type {kind}"
    if what == 1:
        changes = {
            "flattened": lambda: array.ravel(),
            "transposed": lambda: array.T,
            "an axis more": lambda: array[None],
            "emptied": lambda: array[:0] if array.ndim else np.empty(0, array.dtype),
            "made one number": lambda: array.ravel()[0] if array.size else np.array(0.0),
            "cut": lambda: array[:-1] if array.ndim else array,
            "doubled": lambda: np.concatenate([array, array]) if array.ndim else np.stack([array, array]),
            "columns cut": lambda: array[..., :-1] if array.ndim else array,
            "thirty axes": lambda: array.reshape((1,) * (30 - array.ndim) + array.shape),
        }
        words = rng.choice(sorted(changes))
        return np.asarray(changes[words]()), words
    if array.size == 0 or array.dtype.kind not in "iufb":
        return np.array(rng.choice(("", "a", "{}", "[]", "null", "[" * 3000, '{"a": 1e999}'))), "another text"
    values = INTEGERS if array.dtype.kind in "iu" and rng.random() < 0.8 else FLOATS
    value = rng.choice(values)
    if array.dtype.kind in "iub":
        array = array.astype(np.int64 if isinstance(value, int) else np.float64)
    if what == 2:
        array.flat[rng.randrange(array.size)] = value
        return array, f"one value {value}"
    array[...] = value
    return array, f"all values {value}"


def _header(array: np.ndarray, shape: object) -> bytes:
    text = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _forged(arrays: dict[str, np.ndarray], name: str, rng: Random) -> tuple[bytes, str]:
    """The header of an array claims another shape than there is data for."""
    shape, stream = rng.choice(CLAIMS), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for key, array in arrays.items():
            if key == name:
                archive.writestr(f"{key}.npy", _header(np.zeros(1), shape) + np.asarray(array).tobytes())
            else:
                part = io.BytesIO()
                np.save(part, array, allow_pickle=True)
                archive.writestr(f"{key}.npy", part.getvalue())
    return stream.getvalue(), f"the header of {name} claims the shape {shape}"


def _bomb(arrays: dict[str, np.ndarray], name: str) -> tuple[bytes, str]:
    """One array of zeros that is small as long as it is compressed."""
    block, header = bytes(1_000_000), _header(np.zeros(1), (BOMB // 8,))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    once = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself, so it can be repeated
    packed = first + once * (BOMB // len(block)) + packer.flush(zlib.Z_FINISH)
    whole = io.BytesIO()
    np.savez(whole, **{key: array for key, array in arrays.items() if key != name})
    with zipfile.ZipFile(whole, "a") as archive:
        at = archive.start_dir
        entry = zipfile.ZipInfo(f"{name}.npy")
        entry.compress_type, entry.CRC, entry.header_offset = zipfile.ZIP_DEFLATED, 0, at
        entry.compress_size, entry.file_size = len(packed), len(header) + BOMB
        archive.fp.seek(at)
        archive.fp.write(entry.FileHeader() + packed)
        archive.start_dir = archive.fp.tell()
        archive.filelist.append(entry)
        archive.NameToInfo[entry.filename] = entry
        archive._didModify = True
    return whole.getvalue(), f"{name} is {BOMB} bytes of zeros, compressed"
