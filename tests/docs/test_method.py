"""docs/method.md: the sections that docstrings cite exist, and the numbers on the page are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gmcore.config.presets import PRESETS
from gmcore.config.training import Charges, DTensor, Energy, Tensor
from gmcore.engine import reference
from gmcore.engine.heads import n_moment_channels
from gmcore.kernels import network_cpu, tiles_cpu
from gmcore.kernels.contractions_cpu import n_features
from support.pages import page, tables
from support.places import ROOT

METHOD = page("method.md")
SECTIONS = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", METHOD, flags=re.M))
FILES = sorted(path for room in ("kernels", "gmcore", "gmkeras") for path in (ROOT / room).rglob("*.py"))
NUMBER = r"\d+(?:\.\d+)*"
NUMBERS = rf"{NUMBER}(?:(?:, | and ){NUMBER})*"
CITATION = re.compile(rf"docs/method\.md, sections? ({NUMBERS})")
OF_THE_PAPER = re.compile(rf"\bP, sections? {NUMBERS}")
ANY = re.compile(r"\bsections? \d|\bmethod(?:\.md)?,? sections?\b")


def text_of(path: Path) -> str:
    """The file on one line: citations may be broken between lines."""
    return re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))


def cited_sections(text: str) -> list[str]:
    return [number for match in CITATION.finditer(text) for number in re.findall(NUMBER, match[1])]


def badly_cited(text: str) -> list[str]:
    """What speaks of a section in another form than `docs/method.md, section 6` or `P, section 2.1`."""
    rest = OF_THE_PAPER.sub("", CITATION.sub("", text))
    return [rest[max(match.start() - 40, 0) : match.end() + 20] for match in ANY.finditer(rest)]


def block(start: str) -> str:
    """The indented block that begins with `start`, on one line."""
    lines = METHOD[METHOD.index(f"    {start}") :].splitlines()
    return " ".join(line.strip() for line in lines[: next(k for k, line in enumerate(lines) if not line.strip())])


def test_every_cited_section_exists():
    cited = {(path.relative_to(ROOT).as_posix(), n) for path in FILES for n in cited_sections(text_of(path))}
    assert len(cited) > 20
    assert not [place for place in sorted(cited) if place[1] not in SECTIONS]


def test_there_is_one_form_of_citation():
    found = {path.relative_to(ROOT).as_posix(): badly_cited(text_of(path)) for path in FILES}
    assert not {name: places for name, places in found.items() if places}


@pytest.mark.parametrize(
    "old",
    ["method section 6", "(method, section 3)", "Formulas: method sections 1, 2", "see section 4", "P section 2.1"],
)
def test_the_checker_refuses_other_forms(old):
    assert badly_cited(old)
    assert not badly_cited("docs/method.md, sections 1, 2 and 6.3; rates of P, section 2.2.3")
    assert cited_sections("docs/method.md, sections 1, 2 and 6.3; P, section 2") == ["1", "2", "6.3"]


@pytest.mark.parametrize("kernel", ["moments", "contractions", "network"])
@pytest.mark.parametrize("machine", ["cpu", "cuda"])
def test_kernels_cite_their_sections(kernel, machine):
    assert cited_sections(text_of(ROOT / "kernels" / f"{kernel}_{machine}.py"))


def test_sections_are_numbered_without_gaps():
    chapters = [int(n) for n in re.findall(r"^## (\d+)\. ", METHOD, flags=re.M)]
    assert chapters == list(range(1, len(chapters) + 1))
    for chapter in {section.split(".")[0] for section in SECTIONS if "." in section}:
        parts = [int(n) for n in re.findall(rf"^### {chapter}\.(\d+) ", METHOD, flags=re.M)]
        assert parts == list(range(1, len(parts) + 1))


def test_counts_of_features():
    rows = tables(METHOD)["3. Contractions"]
    assert [row[0] for row in rows] == [*map(str, range(8)), "sum"]
    rng = np.random.default_rng(0)
    for column, n in ((4, 3), (5, 5), (6, 7)):
        numbers = [int(row[column]) for row in rows]
        assert sum(numbers[:-1]) == numbers[-1] == n_features(n)
        assert reference.contractions(rng.normal(size=(1, n, 16))).shape[1] == numbers[-1]
        formulas = [row[3].replace("^", "**").replace("n(", "n*(").replace(")(", ")*(") for row in rows[:-1]]
        formulas = [re.sub(r"2\(", "2*(", formula) for formula in formulas]
        assert [eval(formula, {"n": n}) for formula in formulas] == numbers[:-1]


def test_multiplicities():
    (numbers,) = re.findall(r"^    (1;  1 1 1;  .*)$", METHOD, flags=re.M)
    assert tuple(float(x) for x in re.findall(r"\d", numbers)) == tiles_cpu.MULTIPLICITY


def test_order_of_the_components():
    """The monomials of the page are the sums that `pack` takes, and the rebuilt ones those of `unpack`."""
    monomials = block("component   0").split("monomial")[1].split()
    packed = re.sub("[;]", "", block("1;  x y z;")).split()
    assert len(monomials) == 16 and len(packed) == len(tiles_cpu.MULTIPLICITY) == 20
    u = np.random.default_rng(1).normal(size=3)
    u /= np.linalg.norm(u)
    value = {name: float(np.prod([u["xyz".index(letter)] for letter in name if letter != "1"])) for name in packed}
    full = [np.ones((1, 1)), u[None, None], np.outer(u, u)[None, None], np.einsum("a,b,c->abc", u, u, u)[None, None]]
    moments = reference.pack(*full)
    np.testing.assert_allclose(moments[0, 0], [value[name] for name in monomials], rtol=1e-14)
    rebuilt = re.findall(r"(\w+) = ([^,]+)", block("zz = 1 - xx - yy"))
    assert {name for name, _ in rebuilt} == set(packed) - set(monomials)
    for name, formula in rebuilt:
        assert eval(formula, {"__builtins__": {}}, {**value, "x": u[0], "y": u[1], "z": u[2]}) == pytest.approx(
            value[name], abs=1e-14
        )


def test_scale_of_the_swish():
    """The mean of phi^2 over the normal distribution is 1, and the page, both engines and TensorFlow use one number."""
    stated = float(re.search(r"c = (1\.6765\d+)", METHOD)[1])
    assert stated == network_cpu.SWISH == reference.SWISH
    x, weights = np.polynomial.hermite_e.hermegauss(120)
    phi = stated * x / (1 + np.exp(-x))
    assert (weights * phi**2).sum() / weights.sum() == pytest.approx(1.0, abs=1e-12)
    source = (ROOT / "gmkeras" / "activation.py").read_text(encoding="utf-8")
    assert float(re.search(r"SWISH_SCALE = ([\d.]+)", source)[1]) == stated


def test_number_of_moment_channels():
    numbers, radial = re.search(r"number of channels:.*?((?:\d+, )+\d+) for N_r = ((?:\d+, )+\d+)", METHOD).groups()
    assert [n_moment_channels(int(n)) for n in radial.split(", ")] == [int(n) for n in numbers.split(", ")]


def test_default_weights_of_the_losses():
    stated = {row[0]: float(re.match(r"[\d.]+", row[2])[0]) for row in tables(METHOD)["8. Losses and training"]}
    energy, charges = Energy(), Charges()
    assert stated == {
        "energy": energy.energy_weight,
        "forces": energy.forces_weight,
        "stress": energy.stress_weight,
        "charges": charges.charges_weight,
        "dipole": charges.dipole_weight,
        "d_tensor": DTensor().weight,
        "tensor": Tensor().weight,
    }
    assert PRESETS["paper"]["hidden"] == [512, 512] and "two hidden layers of 512" in " ".join(METHOD.split())


def test_constants_of_the_start_of_a_training():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from gmkeras import initial, statistics

    assert f"at most {statistics.SAMPLE} training structures" in " ".join(METHOD.split())
    assert statistics.SMALL_DEVIATION == statistics.SMALL_VARIANCE == float(re.search(r"below (1e-4) of", METHOD)[1])
    assert f"lambda_k + {statistics.SMALL_VARIANCE:.0e}".replace("e-04", "e-4") in METHOD
    assert float(re.search(r"lambda = (\S+) tr", METHOD)[1]) == initial.RIDGE
    assert float(re.search(r"scale = ([\d.]+) rms", METHOD)[1]) == initial.START
