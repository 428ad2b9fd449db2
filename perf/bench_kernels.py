"""The two stages alone, float32: forward, backward and double backward per atom, beside the bare network."""

from __future__ import annotations

import numpy as np

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.stages import Contractions, Moments, make_geometry
from gmcore.engine.structures import Batch, SpeciesTable
from perf.gemms import BareGemms
from perf.harness import compare
from perf.report import Row
from perf.systems import SPECIES, bulk, model_parts


def run() -> list[Row]:
    return [row for n_atoms in (64, 216, 512) for row in _rows(n_atoms)]


def _rows(n_atoms: int) -> list[Row]:
    settings, member = model_parts()
    batch = Batch.from_atoms(bulk(n_atoms))
    pairs = build_pairs(batch, settings.descriptor.r_max)
    geometry = make_geometry(batch, SpeciesTable(SPECIES).index(batch.numbers), pairs)
    moments, contractions = Moments(settings.descriptor), Contractions(settings.descriptor.n_radial)

    rng = np.random.default_rng(1)
    x = (geometry, batch.positions, member.beta.astype(np.float32))
    m = moments.forward(*x)
    g_m, gg_m = (rng.normal(size=m.shape).astype(np.float32) for _ in range(2))
    g_f = rng.normal(size=(n_atoms, contractions.n_features)).astype(np.float32)
    gg = (rng.normal(size=(n_atoms, 3)), rng.normal(size=(1, 3, 3)))
    functions = {
        "bare GEMMs": BareGemms(n_atoms),
        "moments forward": lambda: moments.forward(*x),
        "moments backward, positions": lambda: moments.backward(*x, g_m, want_beta=False),
        "moments backward, positions and beta": lambda: moments.backward(*x, g_m),
        "moments double backward, beta": lambda: moments.double_backward(*x, g_m, *gg, want_positions=False),
        "moments double backward, all": lambda: moments.double_backward(*x, g_m, *gg),
        "contractions forward": lambda: contractions.forward(m),
        "contractions backward": lambda: contractions.backward(m, g_f),
        "contractions double backward": lambda: contractions.double_backward(m, g_f, gg_m),
    }
    timed = compare(functions, sample_s=0.02)
    system = f"{n_atoms} atoms, {pairs.n_pairs / n_atoms:.0f} neighbors, 6.5 A"
    return [
        Row.timed(timed, name, system, "us/atom", n_atoms, to="" if name == "bare GEMMs" else "bare GEMMs")
        for name in functions
    ]
