"""Self-describing numbers and the file that holds them: what is written, and what is refused when it is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gmcore.analysis.records import RecordError, quantity, read_analysis, relative_paths, rounded, thinned, write_json


def test_records(tmp_path):
    entry = quantity(np.float64(np.nan), "K", "nothing", error=np.array([1.0, np.inf]))
    assert entry == {"value": None, "unit": "K", "error": [1.0, None], "about": "nothing"}
    assert rounded([1234.5678, 0.0, np.nan], 3).tolist()[:2] == [1230.0, 0.0]
    assert thinned(1000, 3).tolist() == [0, 500, 999] and thinned(0, 5).size == 0
    path = write_json(tmp_path / "a.json", {"text": "[ 1,\n 2 ]", "list": [1, None, -2.5e-7]})
    assert json.loads(path.read_text()) == {"text": "[ 1,\n 2 ]", "list": [1, None, -2.5e-7]}
    assert "[1, null, -2.5e-07]" in path.read_text()
    for text, words in (
        ("{", "cannot be read"),
        ('{"format": "gmtensor-analysis", "schema": "1"}', "must state its schema, a whole number; write it again"),
        ('{"format": "gmtensor-analysis", "schema": 1e999}', "must state its schema, a whole number"),
        ('{"format": "gmtensor-analysis", "schema": 1}', "does not hold what it should: date: field required; write"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is not an analysis written by gmtensor; write it again with: gmtensor analyze"),
    ):
        (tmp_path / "analysis.json").write_text(text)
        with pytest.raises(RecordError, match=words):
            read_analysis(tmp_path)
    (tmp_path / "analysis.json").write_text('{"format": "gmtensor-analysis", "schema": 99}')
    with pytest.raises(RecordError, match="has schema 99, this version of gmtensor reads up to 1"):
        read_analysis(tmp_path)
    with pytest.raises(RecordError, match="write it with: gmtensor analyze"):
        read_analysis(tmp_path / "none")


def test_paths_become_relative():
    others = ["eV/A", "D / cm^-1", 1.5, None, "../x.h5"]
    content = {"a": "/runs/md/x.h5", "b": ["no file '/data/e.h5': gone", *others]}
    relative = {"a": "x.h5", "b": ["no file '../../data/e.h5': gone", *others]}
    assert relative_paths(content, "/runs/md") == relative == relative_paths(relative, "/runs/md")
