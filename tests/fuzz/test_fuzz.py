"""Damaged files of every kind are read or refused in one sentence; and the fuzzer finds what it is to find."""

from __future__ import annotations

import os

import pytest

from fuzz.faulty import FAULTS, GOOD
from fuzz.faulty import KINDS as FAULTY
from fuzz.mutations import mutated
from fuzz.pool import fuzz, spread, summary
from fuzz.readers import KINDS
from fuzz.samples import write_samples

pytestmark = pytest.mark.slow

IN_THE_SUITE = 1000
IN_FULL = int(os.environ.get("GMTENSOR_FUZZ_INPUTS", "100000"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_a_thousand_damaged_files(samples):
    findings, counts = fuzz(samples, spread(KINDS, IN_THE_SUITE))
    assert counts.keys() == KINDS.keys() and sum(counts.values()) == IN_THE_SUITE
    assert not findings, summary(findings)


@pytest.mark.fuzz
def test_very_many_damaged_files(samples):
    findings, counts = fuzz(samples, spread(KINDS, IN_FULL, first=IN_THE_SUITE))
    assert sum(counts.values()) == IN_FULL
    assert not findings, summary(findings)


def test_every_kind_of_sample_is_damaged(samples, tmp_path):
    """Every seed changes the file, the same seed in the same way."""
    for name, kind in KINDS.items():
        original = samples / name / kind.file
        made = []
        for seed in range(20):
            mutated(original, name, kind.structure, seed, tmp_path / original.name)
            made.append((tmp_path / original.name).read_bytes())
        assert original.read_bytes() not in made, name
        assert len(set(made)) >= 10, name
        if kind.structure != "hdf5":  # which writes times into the file
            mutated(original, name, kind.structure, 7, tmp_path / original.name)
            assert (tmp_path / original.name).read_bytes() == made[7], name


def test_the_fuzzer_finds_every_fault(tmp_path):
    for name in FAULTY:
        (tmp_path / name).mkdir()
        for file in ("a.txt", "sample.txt"):
            (tmp_path / name / file).write_text("a b 1 2 c\nd 3\n")
    inputs = [(name, 2) for name in FAULTY]
    findings, counts = fuzz(tmp_path, inputs, "fuzz.faulty", cpu=0.5, wall=6.0, n_workers=1)
    assert sum(counts.values()) == len(FAULTS) + len(GOOD)
    found = {finding.kind: finding.found for finding in findings}
    expected = {name.replace(" ", "_"): name.partition(" (")[0] for name in FAULTS}
    assert found == expected | {"exit": "crash, exit code 7"}, summary(findings)
    assert "PYTHONPATH=.:tests python -m fuzz TypeError 2" in summary(findings)
