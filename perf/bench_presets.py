"""Energy and forces with models of the sizes of the presets, float32, neighbor list given, for the same atoms.

The cutoffs are those of the presets too, so that `standard` and `fast` have fewer neighbors than `paper`.
"""

from __future__ import annotations

from gmcore.config.presets import PRESETS
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch
from gmcore.model import Model
from perf.harness import compare
from perf.report import Row
from perf.systems import bulk, model_parts

SIZES = (64, 512)
TARGETS = {"fast": "<= 4 us/atom"}


def run() -> list[Row]:
    rows = []
    for n_atoms in SIZES:
        batch = Batch.from_atoms(bulk(n_atoms))
        functions = {name: _energy_forces(preset, batch) for name, preset in PRESETS.items()}
        timed = compare(functions, sample_s=0.1, budget_s=10.0)
        system = f"{n_atoms} atoms, 100 neighbors in 6.5 A"
        for name in PRESETS:
            to = "" if name == "paper" else "paper"
            target = TARGETS.get(name, "") if n_atoms == SIZES[-1] else ""
            rows.append(Row.timed(timed, name, system, "us/atom", n_atoms, to=to, target=target))
    return rows


def _energy_forces(preset, batch):
    settings, member = model_parts(hidden=preset["hidden"], **preset["descriptor"])
    pairs = build_pairs(batch, settings.descriptor.r_max)
    model = Model(settings, [member], "float32")
    return lambda: model.evaluate(batch, pairs, ("energy", "forces"))
