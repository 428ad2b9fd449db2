"""One good file of every kind that is read, with the files that it needs beside it, one folder for each kind."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import Trajectory, write

from gmcore.analysis.analyze import analyze
from gmcore.analysis.mode_files import write_mode_files
from gmcore.config.analysis import Analysis
from gmcore.config.templates import template
from gmcore.data.splits import Indices, write_splits
from gmcore.dynamics.runner import run_md
from gmcore.kernels.contractions_cpu import n_features
from gmcore.labeling.store import Store
from gmcore.model_file import write_model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.environments import learn_environments
from gmcore.uncertainty.uncertainty import Uncertainty
from support.labeled_data import reference
from support.md_runs import configured, raw, write_inputs
from support.models import SPECIES, random_model, random_parts
from support.places import TESTS
from support.quantum_chemistry_files import (
    BANNER,
    energies,
    orca_geometry,
    orca_qdpt,
    orca_scf,
    property_5,
    property_6,
    rows,
    single_aniso,
)
from support.synthetic_runs import complex_molecule, synthetic_run
from support.training_folders import write_training_folder

TENSOR = np.array([[30.0, 2.0, -1.0], [2.0, 25.0, 4.0], [-1.0, 4.0, -55.0]])
COMPLEX = Atoms("CoN2H2", [[0, 0, 0], [1.9, 0, 0.2], [-1.9, 0.1, 0], [2.3, 0.9, 0], [-2.3, 0, 0.9]])


def write_samples(folder: Path) -> None:
    """Write every sample; a few seconds."""
    for make in (_models, _data, _configurations, _labels, _runs, _tensors):
        make(lambda kind: _made(folder / kind))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


Place = Callable[[str], Path]


def _models(at: Place) -> None:
    settings, members = random_parts(("energy", "charges", "d_tensor"), hidden=(5,), n_radial=2)
    rng = np.random.default_rng(1)
    features, species = rng.normal(size=(80, n_features(2))), np.arange(80) % len(SPECIES)
    known = Uncertainty(
        {"energy": Calibration("last_layer", 1.2, 0.1, 0.01, 30, (0.5, 0.8), (0.68, 0.95))},
        learn_environments(features, species, np.arange(0, 81, 4), len(SPECIES)),
    )
    drawn = replace(members[0], draws=rng.normal(size=(3, 6, sum(head.n_outputs for head in settings.heads))))
    write_model(at("model") / "model.h5", settings, [drawn], uncertainty=known)


def _data(at: Place) -> None:
    rng = np.random.default_rng(5)
    data = reference(rng)
    data.write(at("data-hdf5") / "data.h5")
    n_max = max(len(atoms) for atoms in data.atoms)
    arrays = {"R": np.zeros((3, n_max, 3)), "Z": np.zeros((3, n_max), int), "F": np.zeros((3, n_max, 3))}
    arrays |= {"N": np.array([len(atoms) for atoms in data.atoms]), "E": np.array(data.labels["energy"])}
    arrays |= {"cell": data.atoms[0].cell.array, "D": np.array(data.labels["d_tensor"]), "Q": np.full(3, -2.0)}
    frames = []
    for k, atoms in enumerate(data.atoms):
        n = len(atoms)
        arrays["R"][k, :n], arrays["Z"][k, :n] = atoms.positions, atoms.numbers
        arrays["F"][k, :n] = data.labels["forces"][k]
        frame = atoms.copy()
        frame.info["d_tensor"] = data.labels["d_tensor"][k]
        values = {label: data.labels[label][k] for label in ("energy", "forces")}
        frame.calc = SinglePointCalculator(frame, energy=float(values["energy"]), forces=values["forces"])
        frames.append(frame)
    np.savez_compressed(at("data-npz") / "data.npz", **arrays)
    import h5py

    with h5py.File(at("data-flat-hdf5") / "data.h5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    write(at("data-extxyz") / "data.extxyz", frames, format="extxyz")
    with Trajectory(at("data-traj") / "data.traj", "w") as trajectory:
        for frame in frames:
            trajectory.write(frame)
    for kind, suffix in (("data-ase-json", "json"), ("data-ase-db", "db")):
        with connect(at(kind) / f"data.{suffix}") as database:
            for frame in frames:
                database.write(frame, data={"d_tensor": frame.info["d_tensor"]}, key_value_pairs={"source": "a"})
    write(at("structure") / "start.extxyz", COMPLEX)
    write_splits(at("splits") / "splits.json", Indices(12, tuple(range(7)), (7, 8), (9, 10, 11)), seed=3)


def _configurations(at: Place) -> None:
    for kind, name in (("training-yaml", "potential"), ("md-yaml", "md")):
        (at(kind) / "config.yaml").write_text(template(name), encoding="utf-8")
    for kind in ("workflow-yaml", "workflow-json"):
        folder = at(kind)
        (folder / "md.yaml").write_text(
            "output: md\npotential: model.h5\nstructure: {file: start.xyz}\nreplicas: {temperatures: [100]}\n"
            "duration: 1\n"
        )
        (folder / "config.yaml").write_text("output: .\ntrain: []\nmd: md.yaml\n")
        (folder / "workflow.json").write_text(json.dumps({"md md.yaml": "0" * 64, "analyze md": "1" * 64}))
    (at("analysis-yaml") / "config.yaml").write_text(
        "mesa_order: 30\nblocks: 4\nbonds: [[0, 5]]\nmetal: Co\nligands: [1, 2, 3]\nreference:\n  source: Somebody\n"
        "  values:\n    - {quantity: D, value: -100.5, unit: cm^-1, temperature: 50}\n"
        "    - {quantity: distance, value: [1.9, 2.0], unit: A}\n"
    )


def _labels(at: Place) -> None:
    (at("label-yaml") / "config.yaml").write_text(
        "method: python\njobs: 3\ntime_limit: 60\nquantities: [d_tensor, energy]\ntotal_charge: -2\n"
        "python: {function: 'a.py:f', arguments: {scale: 2.5}}\n"
    )
    for kind in ("labels", "labels-refused"):
        folder = at(kind)
        (folder / "orbitals").write_text("")
        store = Store(folder / "work")
        geometry = {"numbers": [8, 1], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 0.97]], "total_charge": -1.0}
        files = {"rasscf.h5": folder / "orbitals"}
        store.add("data", {"d_tensor": TENSOR.tolist()}, {"gap": 100.0}, files, geometry, 1.0, None)
        store.refuse("another", "no convergence", "frame 3", folder / "1234")


def _runs(at: Place) -> None:
    inputs = write_inputs(at("inputs"))
    run = at("trajectory") / "run"
    with contextlib.redirect_stderr(io.StringIO()):  # the progress
        run_md(configured(inputs, run))
    folder = at("state")
    shutil.copy(run / "state.npz", folder / "state.npz")
    (folder / "config.yaml").write_text(yaml.safe_dump(raw(inputs, folder)), encoding="utf-8")
    training = at("training-folder")
    random_model(training / "model.h5", ("d_tensor",), species=(1, 7, 27), hidden=(5,), n_radial=2)
    frames = []
    for k in range(6):
        atoms = complex_molecule()
        atoms.rattle(0.05, seed=k)
        atoms.info["D"] = TENSOR
        frames.append(atoms)
    write_training_folder(training, frames, (2, 2, 2))
    for kind in ("metrics", "learning-curve"):
        shutil.copytree(training, at(kind), dirs_exist_ok=True)
    analyzed = at("analysis") / "run"
    answer = synthetic_run(analyzed, n_samples=60, seeds_each=1)
    (analyzed / "config.yaml").write_text(
        "output: .\npotential: ../../inputs/potential.h5\nstructure: {file: start.xyz}\n"
        "replicas: {temperatures: [50, 100]}\nduration: 2\n"
        "d_tensor: {model: ../../training-folder/model.h5, molecule: {metal: Co}}\n"
    )
    analyze(analyzed, Analysis(mesa_order=8, blocks=2, modes=False))
    (analyzed / "trajectory.h5").unlink()  # the report needs it no more
    write_mode_files(at("modes"), answer.modes, answer.expansion())


def _tensors(at: Place) -> None:
    words = "2ND ORDER SOC CONTRIBUTION", "EFFECTIVE HAMILTONIAN SOC CONTRIBUTION"
    blocks = "".join(
        energies(method) + "".join(orca_qdpt(TENSOR * factor, word) for word in words)
        for method, factor in (("CASSCF", 1.0), ("NEVPT2", 0.9))
    )
    texts = {
        "orca-scf": BANNER + orca_geometry(COMPLEX) + orca_scf(TENSOR),
        "orca-qdpt": BANNER + orca_geometry(COMPLEX) + blocks,
        "orca-property-5": property_5(COMPLEX, TENSOR),
        "orca-property-6": property_6([COMPLEX, COMPLEX], [TENSOR, 1.1 * TENSOR]),
        "single-aniso": single_aniso(TENSOR, COMPLEX),
        "plain-tensor": "# a comment\n" + rows(TENSOR),
    }
    for kind, text in texts.items():
        (at(kind) / "job.out").write_text(text)
    shutil.copy(TESTS / "exchange" / "openmolcas" / "cocl4.rassi.h5", at("rassi-h5") / "job.rassi.h5")
    shutil.copytree(at("plain-tensor"), at("import"), dirs_exist_ok=True)
    write(at("import") / "job.xyz", COMPLEX, format="extxyz")
