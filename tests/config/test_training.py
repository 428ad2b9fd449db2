"""Configurations: what is right comes back resolved and equal, what is wrong is one sentence with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gmcore.config.loading import ConfigError, load_config, parse_config
from gmcore.config.presets import FINE_TUNING, PRESETS
from gmcore.config.templates import template
from gmcore.config.training import Data, Descriptor, NetworkSection, Split, TrainConfig, Training
from gmcore.errors import GMError

BASE = """\
output: runs/d
data:
  files: frames.extxyz
  units: {length: A, d_tensor: cm^-1}
  split: {train: 900, validation: 150, test: 150}
properties:
  d_tensor:
"""


def raw(**changes) -> dict:
    return yaml.safe_load(BASE) | changes


def parsed(content: dict, folder: Path | None = None) -> TrainConfig:
    return parse_config(yaml.safe_dump(content, sort_keys=False), folder=folder)


@pytest.mark.parametrize("kind", ["d-tensor", "potential", "charges", "tensor"])
def test_templates_are_valid(kind):
    assert parse_config(template(kind)).labels


def test_unknown_template():
    with pytest.raises(GMError, match="unknown template 'd_tensor'; did you mean 'd-tensor'"):
        template("d_tensor")


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(BASE + "  # comment\n")
    config = load_config(path)
    assert config.output == tmp_path / "runs" / "d"
    assert config.data.files == [tmp_path / "frames.extxyz"]
    absolute = parsed(raw(output="/somewhere/else"), folder=tmp_path)
    assert absolute.output == Path("/somewhere/else")


def test_presets_fill_only_what_is_not_given():
    standard = parse_config(BASE)
    assert standard.network.standardize and standard.training.initial_scale == "spread"
    assert standard.network.decorrelate
    assert standard.training.learning_rates.model_dump() == PRESETS["standard"]["learning_rates"][False]
    paper = parse_config(BASE + "training: {preset: paper, learning_rates: {radial: 1e-3}}\n")
    assert not paper.network.standardize and paper.training.initial_scale == "reference"
    bases = [config.properties.d_tensor.basis for config in (standard, paper)]
    assert [config.training.optimizer for config in (standard, paper)] == ["muon", "adam"]
    assert bases == ["moments", "positions"] and "basis: positions" in paper.to_yaml()
    given = raw(properties={"d_tensor": {"basis": "positions"}})
    assert parsed(given).properties.d_tensor.basis == "positions"
    assert paper.training.learning_rates.model_dump() == {
        "network": 0.02,
        "radial": 0.001,
        "scale": 0.025,
        "shift": 0.025,
    }
    both = parse_config(BASE + "training: {preset: paper}\nnetwork: {standardize: true}\n")
    assert both.network.standardize and not both.network.decorrelate
    with pytest.raises(ConfigError, match=r"network\.decorrelate needs network\.standardize"):
        parse_config(BASE + "network: {standardize: false, decorrelate: true}\n")


def test_a_start_leaves_open_what_its_file_decides():
    """What a configuration leaves out cannot contradict the file."""
    config = parse_config(BASE + "training: {start_from: m.h5, freeze: radial, learning_rates: {radial: 1e-4}}\n")
    rates = PRESETS["standard"]["learning_rates"][False]
    assert config.training.learning_rates.radial == 1e-4
    assert config.training.learning_rates.network == rates["network"] * FINE_TUNING["network"]
    assert config.network.standardize is config.properties.d_tensor.basis is None
    assert config.training.freeze == ["radial"]
    assert parse_config(config.to_yaml()).to_yaml() == config.to_yaml()


def test_callbacks_are_spelled_out_and_nothing_is_imported():
    """A path, a path with arguments, one of them alone; validation knows neither Keras nor the module."""
    given = ["my.Callback", {"class": "my.Other", "arguments": {"x": None, "y": [1, {"z": 0.5}]}}, {"class": "a.B"}]
    config = parsed(raw(training={"callbacks": given}))
    assert config.training.callbacks == [
        {"class": "my.Callback", "arguments": {}}, given[1], {"class": "a.B", "arguments": {}}
    ]  # fmt: skip
    assert parse_config(config.to_yaml()).training == config.training
    assert parsed(raw(training={"callbacks": "a.B"})).training.callbacks == [{"class": "a.B", "arguments": {}}]


def test_paper_rates_of_a_potential():
    content = raw(properties={"energy": None}, training={"preset": "paper"})
    content["data"]["units"] = {"length": "A", "energy": "eV", "forces": "eV/A"}
    rates = parsed(content).training.learning_rates
    assert (rates.network, rates.radial, rates.shift, rates.scale) == (0.03, 0.02, 0.05, 0.001)


def test_labels_follow_the_weights():
    units = {"length": "A", "energy": "eV", "forces": "eV/A", "stress": "GPa", "charges": "e", "dipole": "Debye"}
    content = raw(properties={"energy": {"forces_weight": 0}, "charges": {"dipole_weight": 0, "conserve": False}})
    content["data"]["units"] = units
    assert parsed(content).labels == ("energy", "charges")
    content["properties"] = {"energy": {"stress_weight": 1}, "charges": {"conserve": False}}
    assert parsed(content).labels == ("energy", "forces", "stress", "charges", "dipole")


WRONG = [
    ({"descriptor": {"r_maxx": 3}}, "unknown key 'r_maxx' in descriptor; did you mean 'r_max'\\?"),
    ({"dscriptor": {}}, "unknown key 'dscriptor' in the configuration; did you mean 'descriptor'\\?"),
    ({"xyz": 1}, "unknown key 'xyz' in the configuration; known: output, seed, data"),
    ({3: 1}, "unknown key 3 in the configuration"),
    ({"descriptor": {"r_max": -3}}, "descriptor.r_max: input should be greater than 0.5, got -3"),
    ({"descriptor": {"r_max": float("nan")}}, "descriptor.r_max: input should be .*, got nan"),
    ({"descriptor": {"r_min": 7}}, "descriptor.r_min must be below r_max, got r_min 7.0 and r_max 5.0"),
    ({"descriptor": 3}, "descriptor must contain keys and values, got 3"),
    ({"training": {"epochs": 2.5, "members": 0}}, r"training.epochs: .*, got 2.5 \(and 1 more\)"),
    ({"training": {"preset": "papr"}}, "training.preset: input should be 'standard', 'fast' or 'paper', got 'papr'"),
    ({"training": {"learning_rates": {"netwrk": 1}}}, "unknown key 'netwrk' in training.learning_rates; did you mean"),
    ({"network": {"hidden": []}}, "network.hidden: list should have at least 1 item"),
    ({"network": {"hidden": [512, "a"]}}, "network.hidden.1: .*, got 'a'"),
    ({"properties": {}}, "properties must contain at least one of energy, charges, d_tensor, tensor, got none"),
    ({"properties": None}, "properties must contain at least one of"),
    ({"properties": {"d_tensr": {}}}, "unknown key 'd_tensr' in properties; did you mean 'd_tensor'\\?"),
    ({"properties": {"energy": {"energy_weight": 0, "forces_weight": 0}}}, "properties.energy needs a weight"),
    (
        {"properties": {"charges": {"charges_weight": 0, "dipole_weight": 0, "conserve": False}}},
        "properties.charges needs a weight",
    ),
    ({"properties": {"charges": None}}, "properties.charges.conserve needs data.total_charge"),
    ({"data": None}, "data.files is missing"),
    ({"seed": -1}, "seed: input should be greater than or equal to 0, got -1"),
    ({"training": {"freeze": ["hiden_0"]}}, "unknown name 'hiden_0' in training.freeze; did you mean 'hidden_0'\\?"),
    ({"training": {"start_from": "m.h5", "separate_models": True}}, "separate_models cannot be used together: train"),
    ({"training": {"new_species": True}}, "training.new_species needs training.start_from: a new model knows"),
    ({"training": {"callbacks": [3]}}, "must have the import path of a class in each entry, such as .*, got 3"),
    ({"training": {"callbacks": ["EarlyStopping"]}}, "import path of a class in each entry, .*, got 'EarlyStopping'"),
    (
        {"training": {"callbacks": [{"arguments": {}}]}},
        "must have the import path of a class in each entry, .*, got None",
    ),
    ({"training": {"callbacks": ["a.b c"]}}, "import path of a class in each entry, .*, got 'a.b c'"),
    (
        {"training": {"callbacks": {"class": "a.B", "argument": {}}}},
        "'argument' in training.callbacks; did you mean 'arg",
    ),
    ({"training": {"callbacks": {"class": "a.B", "arguments": [1]}}}, r"the arguments of 'a.B' in .*, got \[1\]"),
    ({"training": {"callbacks": {"class": "a.B", "arguments": {1: 2}}}}, "must be names with numbers, texts, true"),
    ({"training": {"callbacks": {"class": "a.B", "arguments": {"x": [float("nan")]}}}}, "must be names with numbers"),
    ({"training": {"callbacks": 3}}, "training.callbacks: input should be a valid list, got 3"),
]


@pytest.mark.parametrize("change, message", WRONG)
def test_wrong_values_are_one_sentence(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(raw() | change)
    assert "\n" not in str(caught.value)


WRONG_DATA = [
    ({"units": {"length": "A", "d_tensor": "furlong"}}, "unknown unit 'furlong' for d_tensor; known: cm\\^-1, MHz"),
    ({"units": {"d_tensro": "K"}}, "unknown quantity 'd_tensro' in data.units; did you mean 'd_tensor'"),
    ({"keys": {"force": "F"}}, "unknown label 'force' in data.keys; did you mean 'forces'"),
    ({"files": []}, "data.files: list should have at least 1 item"),
    ({"files": ["a.foo"]}, "the format of a.foo is unknown, because its suffix '.foo' is not one of .xyz"),
    ({"split": {"train": 0, "validation": 1}}, "data.split.train: .*, got 0"),
    ({"split": {"train": 5}}, "data.split.validation must be at least 1"),
    (
        {"split": {"file": "s.json", "test": 3}},
        "data.split.file already defines validation, test and seed: remove these keys",
    ),
    ({"test_files": "t.xyz"}, "data.test_files and data.split.test cannot be used together: set split.test to 0"),
    ({"format": "xyz"}, "data.format: input should be 'auto'"),
    ({"added_only": True}, "data.added_only needs data.added_files: name the files, or set added_only to false"),
    ({"total_charge": [1]}, "data.total_charge"),
]


@pytest.mark.parametrize("change, message", WRONG_DATA)
def test_wrong_data_sections(change, message):
    content = raw()
    content["data"] |= change
    with pytest.raises(ConfigError, match=message):
        parsed(content)


def test_an_hdf5_data_set_states_its_own_units():
    content = raw()
    content["data"] |= {"files": ["set.h5"], "units": {}}
    assert parsed(content).data.units == {}


@pytest.mark.parametrize(
    "text, message",
    [
        ("output: a\n bad: b\n", r"c.yaml, line 2, column 5: mapping values are not allowed here"),
        ("seed: [1\n", "c.yaml, line 2, column 1: expected ',' or ']'"),
        ("seed: 1\nseed: 2\n", "c.yaml, line 2, column 1: the key 'seed' is given twice"),
        ("a: &x {k: 1, k: 2}\n", "the key 'k' is given twice"),
        ("", "c.yaml must contain keys and values, got none"),
        ("- 1\n", "c.yaml must contain keys and values, got \\[1\\]"),
        ("a: \x00", "c.yaml, line 1: .*special characters are not allowed"),
        ("a: !!python/object:os.system {}", "c.yaml, line 1, column 4: could not determine a constructor"),
        ("? [a]\n: 1\n", "c.yaml, line 1, column 3: found unhashable key"),
        ("a: 1\nb: !!int ''\n", "c.yaml, line 2, column 4: '' is not a valid int"),
        ("a: !!float ''\n", "c.yaml, line 1, column 4: '' is not a valid float"),
        ("a: !!bool maybe\n", "c.yaml, line 1, column 4: 'maybe' is not a valid bool"),
        ("a: !!timestamp x\n", "c.yaml, line 1, column 4: 'x' is not a valid timestamp"),
        ("a: 2020-02-31\n", "c.yaml, line 1, column 4: '2020-02-31' is not a valid timestamp"),
        ("a: !!map [a]\n", "c.yaml, line 1, column 4: expected keys and values here"),
        ("a: !!set [a]\n", "c.yaml, line 1, column 4: expected keys and values here"),
        (f"a: {'9' * 5000}\n", r"c.yaml, line 1, column 4: '9{100,200}\.\.\. is not a valid int"),
        ("a: &a [*a]\n", "c.yaml, line 1, column 8: a value must not contain itself"),
        ("a: &a {b: {<<: *a}}\n", "a value must not contain itself"),
        ("[" * 3000, "c.yaml, line 1, column 33: lists and mappings may lie at most 32 levels"),
        ("- " * 3000, "c.yaml, line 1, column 65: lists and mappings may lie at most 32 levels"),
        ("a: &a0 [1]\n" + "".join(f"b{k}: &a{k} [*a{k - 1}]\n" for k in range(1, 99)), "at most 32 levels"),
        (f"a: [{'1,' * 30000}]", "c.yaml, line 1, column 39999: a configuration may hold at most 20000 values"),
        (f"a: *{'b' * 5000}", r"c.yaml, line 1, column 4: found undefined alias 'b{300,400}\.\.\.$"),
        (f"!<{'b' * 5000}> a", "could not determine a constructor"),
        (f"[{'b' * 5000}]", r"c.yaml must contain keys and values, got \['b{100,200}\.\.\.$"),
        (f"output: a\nproperties: {{}}\ndata: {'b' * 5000}", r"data must contain .*, got 'b{100,200}\.\.\."),
        (f"{'b' * 500}: 1", r"unknown key 'b{100,200}\.\.\. in the configuration"),
        ("output: ~nosuchuser/a", "output must be in a folder that exists, got '~nosuchuser/a'"),
        ('output: "a\\0b"', r"output must be a path without unprintable characters, got 'a\\x00b'"),
        ('output: "a\\ud800b"', r"output must be a path without unprintable characters, got 'a\\ud800b'"),
    ],
)
def test_yaml_errors_name_the_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text, name="c.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_aliases_serve_what_is_said_once():
    shared = BASE.replace("validation: 150, test: 150", "validation: &held 150, test: *held")
    assert "*held" in shared and parse_config(shared) == parse_config(BASE)


NESTED = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)
MERGED = "a0: &a0 {k0: 1, l0: 1}\n" + "".join(
    f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}], k{k}: 1}}\n" for k in range(1, 12)
)


@pytest.mark.parametrize("text", [NESTED, MERGED, NESTED.replace("a11: ", "output: ")])
def test_nested_aliases_are_refused_at_once(tmp_path, text):
    """In a process of its own with 1 GB: as the value of a message they took minutes and all memory."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom gmcore.config.kinds import kind_of\n"
        "from gmcore.config.loading import ConfigError, load_config\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "path = Path(sys.argv[1])\n"
        "try:\n    load_config(path, kind_of(path))\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(path)) and len(done.stdout) < 600
    assert "a configuration may hold at most 20000 values, with all that its aliases repeat" in done.stdout


def test_large_files_are_refused_unread(tmp_path):
    (tmp_path / "large.yaml").write_bytes(b"a: 1\n" * 2**18)
    with pytest.raises(ConfigError, match=r"large.yaml must not be larger than 1048576 bytes"):
        load_config(tmp_path / "large.yaml")


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"configuration file .*missing\.yaml does not exist"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary.yaml")


# --- properties that hold for every configuration

names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)

splits = st.builds(
    dict, train=st.none() | st.integers(1, 10**6), validation=st.integers(1, 999), test=st.integers(0, 99)
)
trainings = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.sampled_from(["standard", "paper"]),
        "epochs": st.integers(1, 10**6),
        "batch_size": st.integers(1, 10**4),
        "members": st.integers(1, 100),
        "dtype": st.sampled_from(["float32", "float64"]),
        "threads": st.none() | st.integers(1, 64),
        "separate_models": st.booleans(),
        "learning_rates": st.dictionaries(st.sampled_from(["network", "radial", "scale", "shift"]), st.floats(0, 1)),
    },
)
descriptors = st.builds(
    dict, r_max=st.floats(1.0, 30.0), r_min=st.floats(0.0, 0.9), n_basis=st.integers(1, 64), n_radial=st.integers(1, 8)
)


@settings(max_examples=60, deadline=None)
@given(split=splits, training=trainings, descriptor=descriptors, hidden=st.lists(st.integers(1, 4096), min_size=1))
def test_valid_configurations_survive_a_round_trip(split, training, descriptor, hidden):
    content = raw(training=training, descriptor=descriptor, network={"hidden": hidden[:16]})
    content["data"]["split"] = split
    config = parsed(content, folder=Path("/somewhere"))
    assert parse_config(config.to_yaml()) == config


@settings(max_examples=100, deadline=None)
@given(section=st.sampled_from(["descriptor", "network", "training", "data"]), key=names)
def test_unknown_keys_are_refused_everywhere(section, key):
    known = {"descriptor": Descriptor, "network": NetworkSection, "training": Training, "data": Data}[
        section
    ].model_fields
    content = raw()
    content[section] = content.get(section, {}) | {key: 1}
    if key not in known:
        with pytest.raises(ConfigError, match=f"unknown key '{key}' in {section}(; did you mean|; known:)"):
            parsed(content)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(TrainConfig.model_fields)), trees)
def test_any_value_is_taken_or_refused_in_one_sentence(section, value):
    content = raw() | {section: value}
    try:
        config = parsed(content)
    except ConfigError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert TrainConfig.model_validate(config.model_dump()) == config


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused_in_one_sentence(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert "\n" not in str(caught.value)


def test_schema_describes_every_key():
    schema = TrainConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value.get("description"), f"{section['title']}.{key} has no description"


def test_split_defaults():
    split = Split(validation=3)
    assert (split.train, split.test, split.seed, split.file) == (None, 0, 1, None)
