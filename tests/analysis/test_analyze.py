"""The analysis of runs with a known answer: averages, widths, spectra, modes; missing results are explained."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.integrate import trapezoid

from gmcore import zfs_parameters
from gmcore.analysis import analyze as module
from gmcore.analysis.analyze import analyze
from gmcore.analysis.frames import BodyFrame
from gmcore.analysis.records import read_analysis
from gmcore.analysis.samples import SamplesError
from gmcore.analysis.sections.modes import along_run, harmonic_curves, harmonic_expectation, leading_modes
from gmcore.config.analysis import Analysis
from gmcore.dynamics.trajectory import Trajectory, TrajectoryError, write_segment
from gmcore.molecules.superposition import GeometryError
from support.models import random_model
from support.synthetic_runs import D_ZERO, WAVENUMBERS, complex_molecule, synthetic_run

pytestmark = pytest.mark.slow

ELEMENTS = {"xx": (0, 0), "xy": (0, 1), "xz": (0, 2), "yy": (1, 1), "yz": (1, 2), "zz": (2, 2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run at 50 and 100 K with two replicas each, the parameters behind it, and its analysis."""
    folder = tmp_path_factory.mktemp("analyze") / "run"
    answer = synthetic_run(folder, n_samples=2400)
    return folder, answer, analyze(folder, Analysis(mesa_order=60, bonds=[(0, 5)], angles=[(1, 0, 2)]))


def in_errors(entry: dict, expected: float) -> float:
    """Return the deviation from the expected value in standard errors."""
    assert entry["error"] > 0.0
    return abs(entry["value"] - expected) / entry["error"]


# --- numbers


def test_means_and_widths_are_those_of_the_process(made):
    _, answer, content = made
    assert [state["label"] for state in content["states"]] == ["50 K", "100 K"]
    for state in content["states"]:
        deviations = answer.tensor_deviations(state["target"]["value"])
        first_frame = state["elements"]  # in the axes of the first sample, a few degrees from those of the process
        assert set(first_frame) == set(ELEMENTS)
        total = sum(
            (1 if i == j else 2) * first_frame[name]["width"]["value"] ** 2 for name, (i, j) in ELEMENTS.items()
        )
        assert np.sqrt(total) == pytest.approx(np.linalg.norm(deviations), rel=0.08)
        expected = zfs_parameters(D_ZERO)
        assert in_errors(state["anisotropy"]["D_of_mean"], expected.d) < 4.0
        assert state["anisotropy"]["axis_order"]["value"] > 0.99
        assert state["anisotropy"]["negative_fraction"]["value"] == 1.0
    cold, warm = (state["anisotropy"] for state in content["states"])
    ratio = warm["D_width"]["value"] / cold["D_width"]["value"]
    error = ratio * np.hypot(*(entry["D_width"]["error"] / entry["D_width"]["value"] for entry in (cold, warm)))
    assert abs(ratio - np.sqrt(2.0)) < 4.0 * error < 0.5
    # <E> of frames is no average of the tensor: it is larger where the molecule is warmer
    assert warm["E"]["value"] > cold["E"]["value"] > cold["E_of_mean"]["value"]


def test_a_rotating_molecule_has_the_same_anisotropy(tmp_path):
    analyzed = []
    for tumbling in (True, False):
        synthetic_run(tmp_path / str(tumbling), (50.0,), n_samples=300, tumbling=tumbling)
        analyzed.append(analyze(tmp_path / str(tumbling)))
    for rotating, fixed in zip(*(content["states"] for content in analyzed)):
        for name in ("D", "E", "D_of_mean", "E_of_mean", "axis_spread", "J2"):
            value, expected = rotating["anisotropy"][name]["value"], fixed["anisotropy"][name]["value"]
            assert value == pytest.approx(expected, rel=2e-4), name
        for name in ELEMENTS:
            value, expected = (s["elements"][name]["mean"]["value"] for s in (rotating, fixed))
            assert value == pytest.approx(expected, abs=5e-3), name


def test_committee_errors_and_deviations(made):
    folder, _, content = made
    trajectory = Trajectory(folder)
    state = content["states"][0]
    members = np.concatenate([trajectory.values("d_tensor_members", k)[240:, :, 0] for k in (0, 1)])
    through = zfs_parameters(members).d.mean(axis=0)
    assert state["anisotropy"]["D"]["committee"] == pytest.approx(through.std(), rel=1e-6)
    deviation = np.sqrt(members.var(axis=1).mean(axis=(1, 2)))
    found = state["committee"]["d_tensor"]
    assert found["mean"]["value"] == pytest.approx(deviation.mean(), rel=1e-6)
    low, high = found["mean"]["interval"]
    assert low < found["mean"]["value"] < high and len(found["along"]) == 2
    assert max(found["along"][0]["y"]["values"]) < deviation.max()
    drift = content["states"][0]["thermodynamics"]["drift"]["value"]
    assert drift == pytest.approx([1e6 * 1e-6 / (0.5e-3 * 9)] * 2, rel=1e-6)  # 1e-6 eV a step of 0.5 fs, 9 atoms


def test_spectra_have_their_lines_where_the_modes_are(made):
    _, answer, content = made
    for state in content["states"]:
        for name in ("velocity", "d_tensor"):
            for method in ("maximum_entropy", "fft"):
                found = state["spectra"][name][method]
                x, y = np.array(found["x"]["values"]), np.array(found["y"]["values"])
                low, high = np.array(found["low"]), np.array(found["high"])
                assert np.all((low <= y) & (y <= high))
                for line in WAVENUMBERS[2:]:
                    near = np.abs(x - line) < 80.0
                    assert abs(x[near][y[near].argmax()] - line) < 20.0, (name, method, line)
        # all of the variance of the nine elements is in the spectrum: the lines lie below its end
        found = state["spectra"]["d_tensor"]["maximum_entropy"]
        variance = np.sum(answer.tensor_deviations(state["target"]["value"]) ** 2)
        assert trapezoid(found["y"]["values"], found["x"]["values"]) == pytest.approx(variance, rel=0.25)
        # the kinetic energy is that of as many degrees of freedom as there are modes, not of three for each atom
        for found in state["spectra"]["velocity"].values():
            assert trapezoid(found["y"]["values"], found["x"]["values"]) == pytest.approx(len(WAVENUMBERS), rel=0.1)


def test_correlation_functions_begin_at_one_and_end_within_the_lag(made):
    _, _, content = made
    for found in content["states"][0]["autocorrelations"].values():
        assert found["y"]["values"][0] == pytest.approx(1.0)
        assert found["x"]["values"][-1] == pytest.approx(2.0)
    assert min(content["states"][0]["autocorrelations"]["d_tensor_fluctuation"]["y"]["values"]) < 0.0


def test_structure_and_its_correlation_with_d(made):
    folder, _, content = made
    trajectory, structure = Trajectory(folder), content["states"][0]["structure"]
    positions = np.concatenate([trajectory.values("position", k)[240:] for k in (0, 1)])
    distance = np.linalg.norm(positions[:, 1:5] - positions[:, :1], axis=2).mean(axis=1)
    d = zfs_parameters(np.concatenate([trajectory.values("d_tensor", k)[240:, 0] for k in (0, 1)])).d
    by_name = {measure["name"]: measure for measure in structure["measures"]}
    assert list(by_name) == ["distance", "order", "Co0-H5", "N1-Co0-N2"]
    assert by_name["distance"]["words"] == "mean Co-N distance"
    assert by_name["distance"]["mean"]["value"] == pytest.approx(distance.mean(), rel=1e-6)
    assert by_name["N1-Co0-N2"]["mean"]["unit"] == "deg"
    found = next(c for c in structure["correlations"] if (c["of"], c["with"]) == ("D", "distance"))
    assert found["value"] == pytest.approx(np.corrcoef(d, distance)[0, 1], abs=1e-6)
    assert found["interval"][0] < found["value"] < found["interval"][1]


def test_modes_that_made_the_run_explain_it(made):
    folder, answer, _ = made
    trajectory = Trajectory(folder)
    masses = trajectory.masses
    frame = BodyFrame(answer.modes.atoms.positions, masses, "")
    positions = np.stack([trajectory.values("molecule_position", k)[:, 0] for k in (0, 1)])
    tensors = np.stack([trajectory.values("d_tensor", k)[:, 0] for k in (0, 1)])
    rotated, _ = frame.rotate(positions, tensors)
    found = along_run(answer.modes, answer.expansion(), positions, rotated, 4.0, 50.0, 5.0)
    assert found["explained"]["value"] == pytest.approx(1.0, abs=0.02)
    assert np.all(np.array(found["coherence"]["D"]["value"])[:3] > 0.6)
    assert found["coherence"]["floor"]["value"] < 0.2
    assert np.array(found["thermal_ratio"]["value"]) == pytest.approx(np.ones(6), abs=0.5)


def test_the_course_of_d_and_its_halves(made):
    folder, _, content = made
    trajectory = Trajectory(folder)
    for state in content["states"]:
        (*_, last), drift = state["along"]["D"], state["anisotropy"]["D_drift"]
        low, middle, high = (np.array(part) for part in (last["low"], last["y"]["values"], last["high"]))
        assert len(middle) <= 400 and np.all(low <= middle) and np.all(middle <= high)
        d = zfs_parameters(trajectory.values("d_tensor", state["replicas"][-1])[240:, 0]).d  # after a tenth of the run
        assert low.min() == pytest.approx(d.min(), rel=1e-3) and high.max() == pytest.approx(d.max(), rel=1e-3)
        change = d[len(d) // 2 :].mean() - d[: len(d) // 2].mean()
        assert drift["value"][-1] == pytest.approx(change, rel=1e-6) and drift["error"][-1] > 0.0
        assert abs(change) < 4.0 * drift["error"][-1]
    assert content["molecule"]["symbols"] == complex_molecule().get_chemical_symbols()
    assert [line["name"] for line in content["trust"] if line["level"] == "red"] == []


def test_curves_of_harmonic_modes_begin_at_zero_point_motion(made):
    answer = made[1]
    curves = harmonic_curves(answer.expansion(), 120.0, 1.0, "cm^-1")
    slope = answer.expansion().slopes()[0]
    quantum, classical = (curves[kind]["D_width"] for kind in ("quantum", "classical"))
    assert quantum["x"]["values"][0] == classical["y"]["values"][0] == 0.0
    assert quantum["y"]["values"][0] == pytest.approx(np.sqrt(0.5 * np.sum(slope**2)), rel=1e-5)
    expected = harmonic_expectation(answer.expansion(), 120.0, 1.0, "cm^-1")
    assert quantum["y"]["values"][-1] == pytest.approx(expected["quantum"]["D_width"]["value"], rel=1e-5)
    leading = leading_modes(answer.modes, answer.expansion(), np.arange(9))
    assert leading["modes"] == list(range(len(WAVENUMBERS)))
    assert np.array(leading["displacements"]["value"]) == pytest.approx(answer.modes.displacements, abs=1e-5)


def test_units(tmp_path):
    synthetic_run(tmp_path, (50.0,), n_samples=200)
    content, other = analyze(tmp_path), analyze(tmp_path, Analysis(unit="MHz", modes=False))
    factor = 29979.2458
    for state, expected in zip(other["states"], content["states"]):
        for name, power in (("D", 1), ("E_width", 1), ("J2", 2)):
            value = expected["anisotropy"][name]
            assert state["anisotropy"][name]["value"] == pytest.approx(value["value"] * factor**power, rel=1e-6)
        assert state["anisotropy"]["J2"]["unit"] == "(MHz)^2"
        assert state["committee"]["forces"]["mean"] == expected["committee"]["forces"]["mean"]
    assert other["missing"]["modes"] == "Harmonic modes were switched off (modes: false)"


# --- records


def walk(entry):
    if isinstance(entry, dict):
        yield entry
        for value in entry.values():
            yield from walk(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from walk(value)


def test_everything_written_describes_itself(made):
    folder, _, content = made
    stored = read_analysis(folder)
    assert stored["states"] == json.loads(json.dumps(content["states"]))
    quantities = [entry for entry in walk(stored) if "value" in entry and "level" not in entry]
    curves = [entry for entry in walk(stored) if "x" in entry and "y" in entry]
    assert len(quantities) > 100 and len(curves) > 30
    assert all(entry.get("about") and isinstance(entry.get("unit"), str) for entry in quantities)
    for entry in curves:
        n = len(entry["x"]["values"])
        assert entry["about"] and n == len(entry["y"]["values"]) <= 1001
        assert all(len(entry[band]) == n for band in ("low", "high") if band in entry)


# --- what a run cannot give


def test_a_run_without_d_gives_what_it_can(tmp_path):
    synthetic_run(tmp_path, n_samples=400, with_tensors=False)
    content = analyze(tmp_path)
    assert set(content["missing"]) == {"d_tensor", "models", "modes"}
    state = content["states"][0]
    assert "anisotropy" not in state and state["structure"]["correlations"] == []
    assert set(state["spectra"]) == {"velocity"} and "forces" in state["committee"]
    assert content["frame"] is None and content["run"]["molecule"] is None


def test_without_thermostat_each_replica_stands_alone(tmp_path):
    synthetic_run(tmp_path, n_samples=400, ensemble="nve", n_members=1)
    content = analyze(tmp_path, Analysis(ligands=[1, 2], discard=0.0))
    assert [state["label"] for state in content["states"]] == ["replica 0", "replica 1", "replica 2", "replica 3"]
    assert content["states"][0]["target"]["value"] is None
    assert "needs four ligands, but Co has 2" in content["missing"]["structure_order"]
    assert "d_tensor" not in content["states"][0]["committee"]  # one member deviates from nothing


def test_molecules_of_one_cell_are_no_further_replicas(tmp_path):
    synthetic_run(tmp_path / "one", (50.0,), n_samples=300, cell=12.0)
    run = Trajectory(tmp_path / "one")
    series = {name: np.stack([run.values(name, k) for k in (0, 1)]) for name in run.names()}
    inverted = -series["molecule_position"][:, :, 0] + 12.0  # the same D, always
    series["position"] = np.concatenate([series["position"], inverted], axis=2)
    series["velocity"] = np.concatenate([series["velocity"], -series["velocity"]], axis=2)
    series["molecule_position"] = np.stack([series["molecule_position"][:, :, 0], inverted], axis=2)
    series["d_tensor"] = np.repeat(series["d_tensor"], 2, axis=2)
    series["d_tensor_members"] = np.repeat(series["d_tensor_members"], 2, axis=3)
    header = replace(
        run.header,
        numbers=np.tile(run.numbers, 2),
        masses=np.tile(run.masses, 2),
        molecules=np.arange(2 * run.n_atoms).reshape(2, -1),
    )
    steps = run.steps("position")
    write_segment(tmp_path / "two/trajectory.h5", header, {name: (steps, values) for name, values in series.items()})
    one, two = (analyze(tmp_path / name)["states"][0] for name in ("one", "two"))
    for name in ("D", "D_width", "E", "D_of_mean"):
        tolerance = 1e-3 if name == "D_of_mean" else 1e-9  # one has the axes of the crystal
        assert two["anisotropy"][name]["value"] == pytest.approx(one["anisotropy"][name]["value"], rel=tolerance)
        assert two["anisotropy"][name]["error"] == pytest.approx(one["anisotropy"][name]["error"], rel=10 * tolerance)
    assert two["anisotropy"]["D"]["replicas"] == pytest.approx(one["anisotropy"]["D"]["replicas"])
    assert two["structure"]["measures"][0]["mean"]["error"] == pytest.approx(
        one["structure"]["measures"][0]["mean"]["error"], rel=1e-4
    )


@pytest.mark.parametrize("name", ["conserved", "forces_deviation", "velocity"])
def test_a_series_that_is_not_finite_is_named(tmp_path, name):
    synthetic_run(tmp_path, (50.0,), n_samples=100)
    with h5py.File(tmp_path / "trajectory.h5", "r+") as file:
        place = "particles" if name == "velocity" else "observables"
        values = file[f"{place}/replica_001/{name}/value"]
        values[[40, 50]] = np.nan
    with pytest.raises(SamplesError, match=rf"{name} of replica 1 must be finite, got 2 samples .* first at 160 fs"):
        analyze(tmp_path)


def test_a_short_run_has_broad_lines_or_none(tmp_path):
    synthetic_run(tmp_path, (50.0,), seeds_each=1, n_samples=200)
    content = analyze(tmp_path)
    assert content["missing"]["spectrum_velocity"].startswith(
        "The density of states could not be computed: a spectrum with a band needs at least 256 samples in each replica"
    )
    assert content["states"][0]["spectra"] == {} and "D" in content["states"][0]["anisotropy"]
    with pytest.raises(SamplesError, match=r"60 blocks need at least 240 samples of .* in each replica, got"):
        analyze(tmp_path, Analysis(blocks=60))
    with pytest.raises(SamplesError, match=r"after 0\.75 ps of equilibration"):
        analyze(tmp_path, Analysis(discard=0.75))


def test_no_run(tmp_path):
    with pytest.raises(TrajectoryError, match="has no trajectory"):
        analyze(tmp_path)


def test_missing_models_are_named_without_folders_of_the_machine(tmp_path):
    synthetic_run(tmp_path, n_samples=200)
    config = module.run_config(tmp_path)
    assert config is None
    (tmp_path / "config.yaml").write_text(
        "output: .\npotential: gone.h5\nstructure: {file: gone.xyz}\nreplicas: {temperatures: [50]}\nduration: 1\n"
    )
    content = analyze(tmp_path)
    assert content["missing"]["model_potential"].startswith("The model gone.h5 cannot be used: ")
    assert content["models"] == {} and content["training"] == {}
    assert content["run"]["config"]["potential"] == "gone.h5" and content["run"]["config"]["output"] == "."
    assert str(tmp_path) not in (tmp_path / "analysis.json").read_text()


# --- the frame


def test_mirror_images_are_rotated_after_inversion(rng):
    atoms = complex_molecule()
    masses = atoms.get_masses()
    crooked = atoms.positions + 0.3 * rng.normal(size=(9, 3))
    frame = BodyFrame(crooked, masses, "")
    tensor = np.diag([1.0, 2.0, -3.0]) + np.ones((3, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    for sign in (1.0, -1.0):
        positions = sign * np.tile(crooked @ rotation.T + 5.0, (1, 2, 1, 1))
        tensors = np.tile(rotation @ tensor @ rotation.T, (1, 2, 1, 1))
        back, none = frame.rotate(positions, tensors, None)
        np.testing.assert_allclose(back[0], np.tile(tensor, (2, 1, 1)), atol=1e-10)
        assert none is None
        with_members = frame.rotate(positions, tensors, tensors[:, :, None])
        np.testing.assert_array_equal(with_members[1][:, :, 0], back)
    still = BodyFrame(None, masses, "")
    assert still.rotate(positions, tensors)[0] is tensors
    with pytest.raises(GeometryError, match="the run must have recorded positions"):
        frame.rotate(None, tensors)


def test_the_molecule_of_a_crystal_keeps_its_axes(tmp_path, monkeypatch):
    answer = synthetic_run(tmp_path, (50.0,), n_samples=400, cell=12.0)
    assert "Harmonic modes of a crystal are computed only on request" in analyze(tmp_path)["missing"]["modes"]
    (tmp_path / "config.yaml").write_text(
        f"output: .\npotential: {random_model(tmp_path / 'e.h5', species=(1, 7, 27))}\nstructure: {{file: gone.xyz}}\n"
        "replicas: {temperatures: [50]}\nduration: 1\nd_tensor:\n  molecule: {metal: Co}\n"
        f"  model: {random_model(tmp_path / 'd.h5', ('d_tensor',), species=(1, 7, 27))}\nanalysis: {{modes: true}}\n"
    )
    seen = {}
    monkeypatch.setattr(module, "find_modes", lambda *args: answer.modes)
    monkeypatch.setattr(module, "expand_tensor", lambda *a, molecules: seen.update(of=molecules) or answer.expansion())
    content = analyze(tmp_path)
    state = content["states"][0]
    assert content["frame"] == "axes of the crystal" and content["run"]["periodic"]
    assert seen["of"].indices.tolist() == [list(range(9))]
    assert state["elements"]["zz"]["mean"]["value"] == pytest.approx(D_ZERO[2, 2], abs=1.0)
    assert state["modes"]["explained"]["value"] == pytest.approx(1.0, abs=0.03)
    assert content["modes"]["coupling"]["D"]["value"] == pytest.approx(zfs_parameters(D_ZERO).d)
