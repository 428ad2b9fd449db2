"""Extended XYZ: what is read and written is what ASE reads and writes, to the last bit and byte."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import iread, write

from gmcore.data.readers.ase_files import frame_of, read_extxyz
from gmcore.data.reading import count_frames, read_frames
from gmcore.errors import DataError
from gmcore.extxyz.reading import XYZFrame, read_xyz_frames
from gmcore.extxyz.writing import write_xyz

ROWS = "C 0.1 -2e-3 +3\nh 1 2 3.00000000000000000001\n"
PLAIN = {
    "nothing": "",
    "words": "frame 12 of_run energy=-1.5 uid_of=3",
    "numbers": 'a=1 b=2.5 c=-1e-3 d="1 2 3" e="1.0 2 3e5" f=1,2,3 g=1e400 h="1_0" i=inf j=NaN k=123456789012345678901',
    "quotes": "units=\"positions=A energy=eV\" name='single'",
    "truth": 'x=T y=false z="T F TRUE" w=t v',
    "JSON": 'd="_JSON [[1.0, 2.0], [3.0, NaN]]" e="_JSON [true, 1.5]" f="_JSON {}"',
    "lattice": 'Lattice="5 0 0 0 6.5 0 1 0 7"',
    "pbc": 'pbc="T F T" Lattice="5.0 0 0 0 6 0 0 0 7" stress="1 2 3 4 5 6 7 8 9" virial="1 2 3 4 5 6 7 8 9.5"',
    "results": 'energy=-3 dipole="1 2 3" magmom=1 free_energy=-2.5',
    "again": "a=1 a=b",
}
ODD = {
    "escapes": 'name="say \\"no\\"" other=a\\ b',
    "brackets": "v=[1, 2, 3] w={a b}",
    "spaces around": "a = 1 b= 2 c =3",
    "empty": 'a="" b= c=3',
    "unit cell": "Lattice=5",
    "uid": "uid=0012 a=3",
    "two quotes": 'a="b"c "d"="e"',
    "one pbc": 'pbc="1 1 0"',
    "bad json": 'd="_JSON [1, "',
    "bad properties": "Properties=species:S:1:pos:R:2",
    "masses only": "Properties=species:S:1:mass:R:3",
    "strange columns": "Properties=species:S:1:pos:Q:3",
    "integers": "Properties=Z:I:1:pos:R:3",
}


def by_ase(path) -> list:
    return [frame_of(atoms, f"frame {k} of {path.name}") for k, atoms in enumerate(iread(path, ":", format="extxyz"))]


def outcome(frames) -> list | type:
    """Frames as plain values with their types, or that there is an error."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes() if value.dtype != object else value.tolist()
        return type(value), repr(value)

    try:
        found = list(frames())
    except Exception:
        return DataError
    return [
        (*map(plain, (f.numbers, f.positions, f.cell, f.pbc)), [(k, plain(v)) for k, v in f.fields.items()], f.origin)
        for f in found
    ]


@pytest.fixture
def compared(tmp_path):
    def compare(text: bytes | str, ordinary: bool | None = None) -> None:
        path = tmp_path / "a.xyz"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert outcome(lambda: read_extxyz(path)) == outcome(lambda: by_ase(path)), text
        if ordinary is not None:
            assert all(isinstance(frame, XYZFrame) == ordinary for frame in read_xyz_frames(path)), text

    return compare


def test_comment_lines(compared):
    for comment in PLAIN.values():
        compared(f"2\n{comment}\n{ROWS}", ordinary=True)
    for comment in ODD.values():
        compared(f"2\n{comment}\n{ROWS}")
    compared("".join(f"2\n{comment}\n{ROWS}" for comment in [*PLAIN.values(), *list(ODD.values())[:4]]))


def test_rows(compared):
    many = (
        "Properties=species:S:1:pos:R:3:forces:R:3:charge:R:1:tag:I:1:pair:I:2:on:L:1:name:S:1:energies:R:1:magmoms:R:3"
    )
    row = "Co 0 1 2 0.1 0.2 0.3 -1 7 8 9 T left -3.5 1 2 3\n"
    compared(f"2\n{many}\n{row}  {row.replace('T left', 'Q right')}", ordinary=True)
    compared("2\nProperties=Z:I:1:pos:R:3\n27 0 0 0\n8 0 0 1\n", ordinary=True)
    compared("2\n\n\tCO  1 2\t3 \n O 0 0 1", ordinary=True)  # stray blanks, no end of the last line
    compared("2\r\nenergy=1\r\nC 0 0 0\r\nO 0 0 1\r\n2\r\n\r\nC 0 0 0\r\nO 0 0 1", ordinary=True)
    compared(f"2\n\n{ROWS}\n\n2\n\n{ROWS}")  # what follows a blank line is no frame
    for odd in (
        "2\n\nC 0 0 0 extra\nO 0 0 1\n",
        "2\n\nC 0 0 0\nO 0 0\n",
        "2\n\nC 0 0\nO 0 0 1 2\n",
        "2\n\nC 0 0 zero\nO 0 0 1\n",
        "2\n\nQ 0 0 0\nO 0 0 1\n",
        "2\n\nC 0 0 0 N 1\n2 3\n",
        "2\n\nC 0 0 0\n\n",
        "2\n\nC 0 0 0\n",
        "two\n\nC 0 0 0\nO 0 0 1\n",
        "1\nProperties=species:S:1:pos:R:3:move_mask:L:1\nC 0 0 0 F\n",
        "1\nProperties=species:S:1:pos:R:3:pos:R:3\nC 0 0 0 1 1 1\n",
        "1\nProperties=species:S:1:pos:R:3:x:I:1\nC 0 0 0 9999999999\n",
        "0\n\n1\n\nC 0 0 0\n",
        "1\nfirst\nC 0 0 0\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n1\n\nC 0 0 0\n",
        "1\rmac\rC 0 0 0\r1\r\rC 0 0 1\r",
        "1\none\rtwo\nC 0 0 0\n",
        "1\nnote=Å\nC\u00a00 0 0\n",
    ):
        compared(odd)
    compared("1\nnote=\xe5\nC 0 0 0\n".encode("latin-1"))


def test_numbers_are_those_of_python(compared, rng):
    bits = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    usual = rng.normal(size=1000) * 10.0 ** rng.integers(-9, 9, 1000)
    texts = [repr(x) for x in bits.tolist() if np.isfinite(x)]
    texts += [f"{x:.8f}" for x in usual] + [f"{x:.15e}" for x in usual] + [f"{x:+g}" for x in usual]
    texts += ["1.", ".5", "-.5e1", "9007199254740993", "0.30000000000000004", "1e22", "1e23", "1e-22", "00012.50", "-0"]
    texts += ["1_0.5", "inf", "-Infinity", "nan", "4503599627370497.5"]
    texts = texts[: len(texts) // 3 * 3]
    rows = "".join(f"H {' '.join(texts[k : k + 3])}\n" for k in range(0, len(texts), 3))
    compared(f"{len(texts) // 3}\n\n{rows}", ordinary=True)
    compared("1\n\nH 1e 2 3\n")
    compared("1\n\nH 1..2 2 3\n")
    compared("1\n\nH - 2 3\n")


def test_frames_by_number(tmp_path):
    path = tmp_path / "a.xyz"
    frames = [molecule("CH4"), molecule("H2O"), bulk("Cu")] * 50
    write(path, frames)
    assert count_frames(path) == 150
    assert [f.origin for f in read_frames(path, start=147)] == [f"frame {k} of a.xyz" for k in (147, 148, 149)]
    (found,) = read_frames(path, start=101, stop=102)
    np.testing.assert_array_equal(found.positions, frames[101].positions.round(8))
    path.write_text("2\n\nH 0 0 0\nH 0 0 1\n2\n\nH 0 0 0\n")
    with pytest.raises(DataError, match=r"a\.xyz cannot be read as extended XYZ at frame 1"):
        list(read_frames(path))


def test_writing(rng):
    plain = molecule("CH3OH")
    plain.info |= {"energy": -1.25, "n": np.float64(0.1), "units": "positions=A energy=eV", "word": "x=y", "empty": ""}
    plain.info |= {"d_tensor": rng.normal(size=(3, 3)), "dipole": rng.normal(size=3), "stress": rng.normal(size=(3, 3))}
    plain.info |= {"bad": np.array([np.nan, 1.0]), "quoted": 'a "b"', "flag": True, "count": 3, "list": [1, "a"]}
    plain.arrays["forces"] = rng.normal(size=(6, 3)) * 10.0 ** rng.integers(-10, 5, (6, 1))
    plain.arrays["extrapolation_atoms"] = np.array([0.5e-8, 1.5e-8, -2.5e-8, -0.0, 0.125, 999999.999999995])
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    crystal.pbc = [True, False, True]
    large = Atoms("H2", [[0, 0, -1e6], [1e7, np.nan, 1]])
    fixed = molecule("H2O")
    fixed.set_constraint(FixAtoms([0]))
    calculated = molecule("H2O")
    calculated.calc = SinglePointCalculator(
        calculated, energy=-3.0, stress=rng.normal(size=6), forces=rng.normal(size=(3, 3))
    )
    calculated.set_velocities(rng.normal(size=(3, 3)))
    calculated.info["step"] = 3
    tagged = molecule("H2O")
    tagged.arrays["tags2"] = np.arange(3)
    frames = [plain, crystal, large, fixed, calculated, tagged, Atoms()]
    ours, theirs = io.StringIO(), io.StringIO()
    write_xyz(ours, frames)
    write(theirs, frames, format="extxyz")
    assert ours.getvalue() == theirs.getvalue()


def test_halves_are_rounded_as_the_exact_number(rng):
    values = (rng.integers(0, 10**9, (3000, 3)) + 0.5) * 1e-8 * 10.0 ** rng.integers(0, 4, (3000, 1))
    values = np.concatenate([values, np.nextafter(values, 0.0), rng.integers(-4000, 4000, (3000, 3)) / 2.0**9])
    ours = io.StringIO()
    write_xyz(ours, [Atoms(numbers=np.ones(len(values)), positions=values)])
    rows = [f"H  {x:16.8f} {y:16.8f} {z:16.8f}" for x, y, z in values.tolist()]
    assert ours.getvalue().splitlines()[2:] == rows
