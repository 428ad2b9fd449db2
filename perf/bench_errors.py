"""Predictions with calibrated errors and extrapolation grades, beside the same predictions without."""

from __future__ import annotations

from dataclasses import replace

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.structures import Batch
from gmcore.model import Model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.environments import learn_environments
from gmcore.uncertainty.last_layer import with_draws
from gmcore.uncertainty.uncertainty import Uncertainty
from perf.harness import compare
from perf.report import Row
from perf.systems import model_parts, molecules

N_STRUCTURES, N_ATOMS = 20, 53


def run() -> list[Row]:
    frames = molecules(N_STRUCTURES, N_ATOMS, 40.0, 6.5, seed=1)
    training = molecules(300, N_ATOMS, 40.0, 6.5)
    settings, first = model_parts()
    parts = [first, *(model_parts(seed=seed)[1] for seed in (1, 2))]
    evaluator = Evaluator(settings, [first])
    batch = Batch.from_atoms(training)
    features = evaluator.hidden(batch, evaluator.find_pairs(batch))[0]
    environments = learn_environments(features, batch.species(evaluator.species), batch.offsets, len(evaluator.species))
    some = Calibration("committee", 2.0, 0.1, 0.01, 100, (0.3, 0.6), (0.68, 0.95))
    known = Uncertainty({"energy": some, "forces": some}, environments)
    committee = Model(settings, parts, uncertainty=known)
    single = Model(settings, [with_draws(settings, replace(first, draws=None), training[:50])], uncertainty=known)
    keys = ("energy", "forces")
    functions = {
        "committee of three": lambda: committee.predict(frames, keys, errors=False),
        "committee of three, with errors": lambda: committee.predict(frames, keys),
        "single model": lambda: single.predict(frames, keys, errors=False),
        "single model, errors of energies": lambda: single.predict(frames, keys),
        "single model, errors of forces too": lambda: single.predict(frames, keys, errors=True),
    }
    timed = compare(functions, sample_s=0.05)
    system = f"{N_STRUCTURES} x {N_ATOMS} atoms, 40 neighbors"
    rows = []
    for name in functions:
        base = "single model" if name.startswith("single") else "committee of three"
        target = "<= 1.10" if name == "committee of three, with errors" else ""
        to = base if name != base else ""
        rows.append(Row.timed(timed, name, system, "us/atom", N_STRUCTURES * N_ATOMS, to=to, target=target))
    return rows
