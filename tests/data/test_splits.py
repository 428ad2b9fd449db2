"""Splits: seeded, disjoint, nested in the training size, written down and never silently changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmcore.config.loading import parse_config
from gmcore.config.training import Split
from gmcore.data.splits import SplitError, describe_parts, load_datasets, read_splits, split_indices, write_splits
from gmcore.errors import DataError
from gmcore.units import UnitError


@given(
    n=st.integers(4, 200),
    validation=st.integers(1, 60),
    test=st.integers(0, 60),
    train=st.none() | st.integers(1, 80),
    seed=st.integers(0, 2**32),
)
def test_parts_are_disjoint_and_as_large_as_asked_for(n, validation, test, train, seed):
    split = Split(train=train, validation=validation, test=test, seed=seed)
    wanted = (train or 1) + validation + test
    if wanted > n:
        with pytest.raises(SplitError):
            split_indices(n, split)
        return
    indices = split_indices(n, split)
    every = indices.train + indices.validation + indices.test
    assert len(set(every)) == len(every) and set(every) <= set(range(n))
    assert (len(indices.validation), len(indices.test)) == (validation, test)
    assert len(indices.train) == (train or n - validation - test)
    assert indices == split_indices(n, split)


def test_training_size_changes_nothing_else():
    large = split_indices(100, Split(train=60, validation=20, test=10, seed=3))
    small = split_indices(100, Split(train=20, validation=20, test=10, seed=3))
    assert (small.validation, small.test) == (large.validation, large.test)
    assert small.train == large.train[:20]
    other = split_indices(100, Split(train=60, validation=20, test=10, seed=4))
    assert set(other.test) != set(large.test)


def test_a_seed_means_the_same_split_everywhere():
    """Written down here: a change of this order would let new models meet old test structures."""
    indices = split_indices(8, Split(validation=2, test=2, seed=1))
    assert (indices.test, indices.validation, indices.train) == ((5, 0), (1, 4), (2, 6, 3, 7))


def test_too_many_structures():
    with pytest.raises(SplitError, match="leaves nothing to train on: 5 validation and 5 test structures of 10: lower"):
        split_indices(10, Split(validation=5, test=5))
    with pytest.raises(SplitError, match="train asks for 9 structures, but only 6 of 10 are left after 2 validation"):
        split_indices(10, Split(train=9, validation=2, test=2))


def test_files_of_splits(tmp_path):
    path = tmp_path / "splits.json"
    indices = split_indices(20, Split(validation=4, test=3))
    write_splits(path, indices, seed=1)
    assert read_splits(path) == indices and json.loads(path.read_text())["seed"] == 1
    assert split_indices(20, Split(file=path)) == indices
    assert split_indices(20, Split(file=path, train=5)).train == indices.train[:5]
    with pytest.raises(SplitError, match=r"splits.json is a split of 20 structures, but the data have 21"):
        split_indices(21, Split(file=path))


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "splits.json cannot be read: "),
        ("[" * 100_000, "splits.json cannot be read: "),
        ("[1, 2]", r"splits.json does not hold what it should: its content: .*, got \[1, 2\]"),
        ('{"n_structures": 1e999, "train": [], "validation": [], "test": []}', "n_structures: .* integer, got inf"),
        ('{"n_structures": 3, "train": [1e999], "validation": [], "test": []}', "train.0: .* integer, got inf"),
        ('{"n_structures": 3, "train": [0.5], "validation": [], "test": []}', "train.0: .* integer, got 0.5"),
        (f'{{"n_structures": {"9" * 400}, "train": [], "validation": [], "test": []}}', "n_structures: .* got 9+"),
        (f'{{"n_structures": {"9" * 5000}}}', "splits.json cannot be read: "),
        ('{"n_structures": 3}', "does not hold what it should: train: field required"),
        ('{"n_structures": 3, "train": ["a"], "validation": [], "test": []}', "train.0: .* integer, got 'a'"),
        ('{"n_structures": 3, "train": [0, 1], "validation": [1], "test": []}', "lists a structure twice"),
        ('{"n_structures": 3, "train": [0], "validation": [3], "test": []}', "between 0 and 2, got 0 to 3"),
        ('{"n_structures": 3, "train": [0], "validation": [-1], "test": []}', "between 0 and 2, got -1 to 0"),
    ],
)
def test_damaged_files_of_splits(tmp_path, content, message):
    path = tmp_path / "splits.json"
    path.write_text(content)
    with pytest.raises(SplitError, match=message):
        read_splits(path)


def test_missing_file_of_splits(tmp_path):
    with pytest.raises(SplitError, match=r"split file .*no.json does not exist"):
        read_splits(tmp_path / "no.json")


def configuration(tmp_path, split="{train: 5, validation: 2, test: 2}", extra=""):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savez(
            tmp_path / f"{name}.npz",
            coords=rng.normal(size=(10, 3, 3)),
            nuclear_charges=np.array([8, 1, 1]),
            D=np.tile(np.diag([1.0, 2.0, 6.0]), (10, 1, 1)),
        )
    text = f"""
output: out
data:
  files: a.npz
  units: {{length: A, d_tensor: cm^-1}}
  split: {split}
{extra}
properties: {{d_tensor: }}
"""
    return parse_config(text, folder=tmp_path)


def test_parts_are_read_and_written_down(tmp_path):
    config = configuration(tmp_path)
    assert not (load_datasets(config, write=False) and (tmp_path / "out").exists())
    parts = load_datasets(config)
    assert {part: len(dataset) for part, dataset in parts.items()} == {"train": 5, "validation": 2, "test": 2}
    indices = read_splits(tmp_path / "out" / "splits.json")
    whole = np.load(tmp_path / "a.npz")["coords"]
    np.testing.assert_array_equal(parts["test"].atoms[1].positions, whole[indices.test[1]])
    lines = describe_parts(parts)
    assert lines[0] == "train:" and lines[-1] == "d_tensor: trace removed, mean 9, standard deviation 0 cm^-1"


def test_a_changed_split_is_refused(tmp_path):
    """Else structures that a model was trained on would become test structures."""
    load_datasets(configuration(tmp_path))
    load_datasets(configuration(tmp_path))
    with pytest.raises(SplitError, match=r"splits.json splits the data differently .*: choose another output"):
        load_datasets(configuration(tmp_path, split="{train: 5, validation: 2, test: 2, seed: 7}"))
    with pytest.raises(SplitError, match="choose another output"):
        load_datasets(configuration(tmp_path, split="{train: 6, validation: 2, test: 2}"), write=False)


def test_separate_test_files(tmp_path):
    config = configuration(tmp_path, split="{validation: 3}", extra="  test_files: b.npz")
    parts = load_datasets(config)
    assert {part: len(dataset) for part, dataset in parts.items()} == {"train": 7, "validation": 3, "test": 10}
    other = np.load(tmp_path / "b.npz")["coords"]
    np.testing.assert_array_equal(parts["test"].atoms[0].positions, other[0])


def test_no_test_part(tmp_path):
    assert set(load_datasets(configuration(tmp_path, split="{validation: 3}"))) == {"train", "validation"}


# Added files


def added_file(path, frames, text='units="positions=A d_tensor=MHz" d_tensor') -> None:
    """Extended XYZ of water-like molecules with D = diag(-1, -1, 2) 1e4."""
    tensor = "-1e4 0 0 0 -1e4 0 0 0 2e4"
    lines = []
    for positions in frames:
        lines += ["3", f'Properties=species:S:1:pos:R:3 {text}="{tensor}"']
        lines += [f"{symbol} {x:.8f} {y:.8f} {z:.8f}" for symbol, (x, y, z) in zip("OHH", positions)]
    path.write_text("\n".join(lines) + "\n")


def hashes(dataset) -> list[bytes]:
    return [frame.positions.round(5).tobytes() for frame in dataset.atoms]


def test_added_structures_go_to_training_and_validation(tmp_path):
    """With standard names and units of their own, each by its content: one more file moves none of them."""
    base = load_datasets(configuration(tmp_path), write=False)
    frames = np.random.default_rng(5).normal(size=(40, 3, 3))
    added_file(tmp_path / "one.xyz", frames[:25])
    added_file(tmp_path / "two.xyz", frames[25:])
    keys = "  keys: {d_tensor: D}\n"
    one = load_datasets(configuration(tmp_path, extra=f"{keys}  added_files: one.xyz"), write=False)
    both = load_datasets(configuration(tmp_path, extra=f"{keys}  added_files: [two.xyz, one.xyz]"), write=False)
    assert hashes(one["test"]) == hashes(both["test"]) == hashes(base["test"])
    for part in ("train", "validation"):
        assert hashes(one[part])[: len(base[part])] == hashes(base[part])
        assert set(hashes(one[part])) < set(hashes(both[part]))
    assert len(one["train"]) + len(one["validation"]) == 5 + 2 + 25
    assert 2 + 40 / 7 < len(both["validation"]) < 2 + 40 / 2
    np.testing.assert_allclose(one["train"].labels["d_tensor"][-1], np.diag([-1, -1, 2]) * 1e4 / 29979.2458)
    assert "added: " in " ".join(one["train"].notes)


def test_added_structures_alone_and_twice(tmp_path):
    """Neither a structure of the test part nor one that is given twice is trained on."""
    base = load_datasets(configuration(tmp_path), write=False)
    frames = np.random.default_rng(5).normal(size=(10, 3, 3))
    added_file(tmp_path / "one.xyz", [*frames, frames[0], base["test"].atoms[0].positions])
    extra = "  keys: {d_tensor: D}\n  added_files: one.xyz\n  added_only: true"
    parts = load_datasets(configuration(tmp_path, extra=extra), write=False)
    found = hashes(parts["train"]) + hashes(parts["validation"])
    assert len(found) == len(set(found)) == 10 and parts["validation"].atoms
    assert hashes(parts["test"]) == hashes(base["test"])
    assert any("2 structures left out" in note for note in parts["train"].notes)
    added_file(tmp_path / "one.xyz", frames[:1])
    with pytest.raises(SplitError, match=r"added_only needs at least 2 structures .* have 1: add some"):
        load_datasets(configuration(tmp_path, extra=extra), write=False)


def test_an_added_file_states_the_units_of_its_standard_names(tmp_path):
    """Those of data.units belong to the names that the other files have."""
    added_file(tmp_path / "one.xyz", np.random.default_rng(5).normal(size=(3, 3, 3)), "d_tensor")
    extra = "  keys: {d_tensor: D}\n  added_files: one.xyz"
    with pytest.raises(UnitError, match=r'frame 0 of one.xyz must state the unit of d_tensor, by units="d_tensor=...'):
        load_datasets(configuration(tmp_path, extra=extra), write=False)


def test_an_added_file_with_two_names_for_a_label_is_refused(tmp_path):
    """One may be the label of a cheaper method that the frame had before."""
    added_file(tmp_path / "one.xyz", np.random.default_rng(5).normal(size=(3, 3, 3)), 'D="1 0 0 0 1 0 0 0 -2" d_tensor')
    with pytest.raises(DataError, match=r"frame 0 of one.xyz has both D and d_tensor"):
        load_datasets(configuration(tmp_path, extra="  keys: {d_tensor: D}\n  added_files: one.xyz"), write=False)
