"""Energy and forces of one model, float32, neighbor list given: gmtensor, the bare GEMMs, plain TensorFlow, apax.

The strain derivative that gmtensor computes along the way is in its time; the others compute energy and forces only.
"""

from __future__ import annotations

from gmcore.model import Model
from gmcore.neighbors import build_pairs
from gmcore.structures import Batch, SpeciesTable

from .gemms import BareGemms
from .harness import compare
from .peers import apax_energy_forces, installed
from .report import Row
from .systems import SPECIES, bulk, model_parts

PEERS = {"plain TensorFlow": ">= 18", "apax": ">= 12"}


def run() -> list[Row]:
    return [row for n_atoms in (64, 216, 512) for row in _rows(n_atoms)]


def _rows(n_atoms: int) -> list[Row]:
    settings, member = model_parts()
    batch = Batch.from_atoms(bulk(n_atoms))
    pairs = build_pairs(batch, settings.descriptor.r_max)
    model = Model(settings, [member], "float32")
    functions = {
        "bare GEMMs": BareGemms(n_atoms),
        "gmtensor": lambda: model.evaluate(batch, pairs, ("energy", "forces")),
        "plain TensorFlow": _plain(settings, member, batch, pairs),
        "apax": apax_energy_forces(batch, pairs, settings.descriptor),
    }
    present = {name: function for name, function in functions.items() if function is not None}
    timed = compare(present, sample_s=0.05, budget_s=10.0)

    system = f"{n_atoms} atoms, {pairs.n_pairs / n_atoms:.0f} neighbors, 6.5 A"
    rows = [
        Row.timed(timed, "bare GEMMs", system, "us/atom", n_atoms),
        Row.timed(timed, "gmtensor", system, "us/atom", n_atoms, to="bare GEMMs", target="<= 1.5"),
    ]
    for name, target in PEERS.items():
        if name in present:
            rows.append(Row.timed(timed, name, system, "us/atom", n_atoms, to="gmtensor", target=target))
        else:
            rows.append(Row(name, system, "us/atom", note=f"{name}: not installed"))
    return rows


def _plain(settings, member, batch, pairs):
    if not installed("tensorflow"):
        return None
    from .plain_tensorflow import PlainModel, plain_inputs

    plain = PlainModel(settings.descriptor, member, dtype="float32")
    inputs = plain_inputs(batch, SpeciesTable(SPECIES).index(batch.numbers), pairs)
    return lambda: [part.numpy() for part in plain.energy_forces(inputs)]
