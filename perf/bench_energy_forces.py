"""Energy and forces of one model, float32, neighbor list given: gmtensor, the bare GEMMs, plain TensorFlow, apax.

The strain derivative that gmtensor computes along the way is in its time; the others compute energy and forces only.
gmtensor and the floor are compared in a process of their own for each size: with TensorFlow and JAX loaded, calls of a
millisecond were seen to take half as long again, and more.
"""

from __future__ import annotations

import numpy as np

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.model import Model
from gmcore.threads import get_threads, set_threads
from perf.gemms import BareGemms
from perf.harness import Comparison, compare, in_child
from perf.peers import apax_energy_forces, installed
from perf.report import Row
from perf.systems import SPECIES, bulk, model_parts

PEERS = {"plain TensorFlow": ">= 18", "apax": ">= 12"}


SIZES = (64, 216, 512)


def run() -> list[Row]:
    return [row for n_atoms in SIZES for row in (*_against_the_floor(n_atoms), *_against_peers(n_atoms))]


def floor_samples(n_atoms: int, n_threads: int) -> dict:
    """Samples of gmtensor and the floor; called in a process of its own."""
    set_threads(n_threads)
    _, batch, pairs, *parts = _problem(n_atoms)
    functions = {"bare GEMMs": BareGemms(n_atoms), "gmtensor": _gmtensor(batch, pairs, *parts)}
    timed = compare(functions, sample_s=0.1, budget_s=8.0)
    seconds = {name: samples.tolist() for name, samples in timed.seconds.items()}
    return {"seconds": seconds, "first_call": timed.first_call, "foreign": timed.foreign}


def _against_the_floor(n_atoms: int) -> list[Row]:
    system = _problem(n_atoms)[0]
    found = in_child(__name__, "floor_samples", {"n_atoms": n_atoms, "n_threads": get_threads()})
    seconds = {name: np.array(samples) for name, samples in found["seconds"].items()}
    timed = Comparison(seconds, found["first_call"], found["foreign"])
    return [
        Row.timed(timed, "bare GEMMs", system, "us/atom", n_atoms),
        Row.timed(timed, "gmtensor", system, "us/atom", n_atoms, to="bare GEMMs", target="<= 1.5"),
    ]


def _against_peers(n_atoms: int) -> list[Row]:
    system, batch, pairs, settings, member = _problem(n_atoms)
    functions = {
        "gmtensor": _gmtensor(batch, pairs, settings, member),
        "plain TensorFlow": _plain(settings, member, batch, pairs),
        "apax": apax_energy_forces(batch, pairs, settings.descriptor),
    }
    present = {name: function for name, function in functions.items() if function is not None}
    timed = compare(present, sample_s=0.1, budget_s=10.0)
    rows = []
    for name, target in PEERS.items():
        if name in present:
            rows.append(Row.timed(timed, name, system, "us/atom", n_atoms, to="gmtensor", target=target))
        else:
            rows.append(Row(name, system, "us/atom", note=f"{name}: not installed"))
    return rows


def _problem(n_atoms: int):
    settings, member = model_parts()
    batch = Batch.from_atoms(bulk(n_atoms))
    pairs = build_pairs(batch, settings.descriptor.r_max)
    return f"{n_atoms} atoms, {pairs.n_pairs / n_atoms:.0f} neighbors, 6.5 A", batch, pairs, settings, member


def _gmtensor(batch, pairs, settings, member):
    model = Model(settings, [member], "float32")
    return lambda: model.evaluate(batch, pairs, ("energy", "forces"))


def _plain(settings, member, batch, pairs):
    if not installed("tensorflow"):
        return None
    from perf.plain_tensorflow import PlainModel, plain_inputs

    plain = PlainModel(settings.descriptor, member, dtype="float32")
    inputs = plain_inputs(batch, SpeciesTable(SPECIES).index(batch.numbers), pairs)
    return lambda: [part.numpy() for part in plain.energy_forces(inputs)]
