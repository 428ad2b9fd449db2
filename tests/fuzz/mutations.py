"""Damage: bytes of any file, tokens of texts, and by structure (`trees`, `arrays`, `hdf5`), all from one generator."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from random import Random

NUMBERS = (
    *("-1", "0", "1e999", "-1e999", "nan", "NaN", "inf", "Infinity", "1e308", "-1e308", "1e-320", "999999999999"),
    *("4294967302", "9223372036854775808", "-9223372036854775809", "1" * 400, "1." + "9" * 400, "1_000", "0x10"),
    *("1e", "--1", "1,5", "1.2.3", "1e5e5", "", "٣", "½", "True", "1j"),
)
WORDS = (
    *("", " ", "\x00", "\ufeff", "\u2028", "a" * 20000, "~nosuchuser", "../../..", "None", "null", "{}", "[]", '"'),
    *("'", "%s", "%n", "${HOME}", "{0}", "\\", "\t", "\r", "-", ":", "#", "X", "Zz", "é", "\ud83d\ude00"),
)
YAML = (
    *(
        "!!int ''",
        "!!float ''",
        "!!bool maybe",
        "!!timestamp x",
        "!!map [a]",
        "!!set {a, b}",
        "!!omap [a]",
        "!!pairs [a]",
    ),
    *("!!python/object/apply:os.system ['true']", "!!binary x", "!!null x", "&a [*a]", "&a {b: *a}", "*nobody", "!x y"),
    *("{<<: [1, 2]}", "{<<: {a: 1}}", "{[1]: 2}", "{{a: 1}: 2}", "? [a]\n: b", "|\n  text", ">-\n  text", "%YAML 9.9"),
    *("2001-99-99", "2001-01-01", "12:30:45", "0o17", "0b1", ".inf", ".nan", "-.inf", "yes", "~", "1_0", "...", "---"),
    "[&a [x, x, x, x, x, x, x, x, x], &b [*a, *a, *a, *a, *a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b, *b, *b], "
    "&d [*c, *c, *c, *c, *c, *c, *c, *c], &e [*d, *d, *d, *d, *d, *d, *d, *d], [*e, *e, *e, *e, *e, *e, *e, *e]]",
)
INTEGERS = (0, 1, -1, 255, 2**31 - 1, -(2**31), 2**32 - 1, 2**32 + 6, 2**63 - 1, -(2**63), 2**40, 10**6)
DEPTHS = (50, 1000, 3000, 100000)


def mutated(path: Path, kind: str, structure: str, seed: int, target: Path) -> str:
    """Write a damaged copy of the sample `path` to `target`; return what was done to it, in words."""
    rng = Random(f"{kind} {seed}")
    original = content = path.read_bytes()
    words: list[str] = []
    wanted = rng.choice((1, 1, 1, 1, 2, 3))
    while len(words) < wanted or (content == original and len(words) < 20):
        content, done, intact = _one(content, structure, rng, target, content == original)
        words.append(done)
        if structure == "hdf5" and not intact:  # HDF5 may hang on it; here nobody watches
            structure = "bytes"
    target.unlink(missing_ok=True)  # a file that HDF5 may still hold open has another place on the disk
    target.write_bytes(content)
    return ", then ".join(words)


def _one(content: bytes, structure: str, rng: Random, target: Path, whole: bool) -> tuple[bytes, str, bool]:
    """Return the content, what was done to it, and whether it still has its structure."""
    by_structure = structure != "bytes" and rng.random() < 0.65
    if by_structure and structure == "hdf5":
        from fuzz.hdf5 import damaged_hdf5 as damage
    elif by_structure and structure == "npz":
        from fuzz.arrays import damaged_npz as damage
    elif by_structure and structure == "sqlite":
        from fuzz.trees import damaged_database as damage
    elif by_structure and structure in ("json", "yaml") and rng.random() < 0.6:
        from fuzz.trees import damaged_tree as damage
    elif by_structure and structure in ("text", "json", "yaml"):
        return (*_text(content, structure, rng), False)
    else:
        return (*_bytes(content, rng), False)
    try:
        return (*damage(content, structure, rng, target), True)
    except Exception as error:
        if whole and not isinstance(error, Unreadable):
            raise
        return (*_bytes(content, rng), False)  # an earlier mutation broke the structure, in whatever way


class Unreadable(Exception):
    """The content has no structure any more that could be damaged."""


def _bytes(content: bytes, rng: Random) -> tuple[bytes, str]:
    data = bytearray(content)
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200))), "random bytes"
    at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    end = min(end, at + rng.choice((1, 8, 100, 5000)))
    length = rng.choice((1, 2, 4, 8, 64, 1000))
    what = rng.randrange(11)
    if what == 0:
        places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 8, 40)))]
        for place in places:
            data[place] ^= 1 << rng.randrange(8)
        return bytes(data), f"bits flipped at {places}"
    if what == 1:
        data[at:at] = bytes(length)
        return bytes(data), f"{length} zero bytes inserted at {at}"
    if what == 2:
        return bytes(data[:at]), f"cut off at {at}"
    if what == 3:
        times = rng.choice((1, 2, 50))
        data[end:end] = data[at:end] * times
        return bytes(data), f"bytes {at} to {end} repeated {times} times"
    if what == 4:
        del data[at:end]
        return bytes(data), f"bytes {at} to {end} removed"
    if what == 5:
        byte = rng.choice((0, 0xFF, 0x20, 0x80, 0x7F))
        data[at:end] = bytes([byte]) * (end - at)
        return bytes(data), f"bytes {at} to {end} set to {byte}"
    if what == 6:
        number = rng.choice(INTEGERS)
        packed = (
            struct.pack("<q", number) if rng.random() < 0.5 else struct.pack("<i", (number + 2**31) % 2**32 - 2**31)
        )
        data[at : at + len(packed)] = packed
        return bytes(data), f"{number} written into {len(packed)} bytes at {at}"
    if what == 7:
        data += bytes(rng.randrange(256) for _ in range(length))
        return bytes(data), f"{length} bytes appended"
    if what == 8:
        other = rng.randrange(len(data))
        block = bytes(data[other : other + length])
        data[at : at + len(block)] = block
        return bytes(data), f"{len(block)} bytes of {other} copied to {at}"
    if what == 9:
        number = rng.choice((float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, -1.0, 0.0))
        at -= at % 8
        data[at : at + 8] = struct.pack("<d", number)
        return bytes(data), f"{number} written at {at}"
    return b"", "emptied"


def _text(content: bytes, structure: str, rng: Random) -> tuple[bytes, str]:
    text = content.decode("utf-8", errors="replace")
    tokens = [found.span() for found in re.finditer(r"[^\s,:{}\[\]()|\"=]+", text)]
    numbers = [span for span in tokens if re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", text[slice(*span)])]
    lines = text.splitlines(keepends=True)
    if not tokens or not lines:
        return _bytes(content, rng)
    what = rng.randrange(10)
    if what <= 2 and numbers:
        start, end = rng.choice(numbers)
        new = rng.choice(NUMBERS)
        text, words = text[:start] + new + text[end:], f"{text[start:end]!r} at {start} is now {new[:40]!r}"
    elif what == 3:
        start, end = rng.choice(tokens)
        new = rng.choice(WORDS)
        text, words = text[:start] + new + text[end:], f"{text[start:end][:40]!r} at {start} is now {new[:40]!r}"
    elif what == 4:
        (a, b), (c, d) = sorted((rng.choice(tokens), rng.choice(tokens)))
        if b <= c:
            text = text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]
        words = f"words at {a} and {c} swapped"
    elif what == 5:
        k = rng.randrange(len(lines))
        times = rng.choice((0, 2, 3, 1000))
        text, words = (
            "".join(lines[:k] + lines[k : k + 1] * times + lines[k + 1 :]),
            f"line {k + 1} stands {times} times",
        )
    elif what == 6:
        k, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[k], lines[other] = lines[other], lines[k]
        text, words = "".join(lines), f"lines {k + 1} and {other + 1} swapped"
    elif what == 7:
        k, depth, (left, right) = rng.choice(tokens)[0], rng.choice(DEPTHS), rng.choice(("[]", "{}", '""', "- ", "()"))
        nested = left * depth + (right * depth if rng.random() < 0.5 else "")
        text, words = text[:k] + nested + text[k:], f"{depth} times {left!r} at {k}"
    elif what == 8 and structure == "yaml":
        start, end = rng.choice(tokens)
        new = rng.choice(YAML)
        text, words = text[:start] + new + text[end:], f"{text[start:end]!r} at {start} is now {new[:40]!r}"
    else:
        start, end = rng.choice(tokens)
        text, words = text[:start] + text[end:], f"{text[start:end][:40]!r} at {start} removed"
    return text.encode("utf-8", errors="surrogatepass"), words
