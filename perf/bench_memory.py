"""Peak memory of energy and forces, in a process of its own: everything is counted, interpreter and imports too."""

from __future__ import annotations

from perf.harness import in_child, peak_memory
from perf.report import Row

SIZES = (25_000, 50_000, 100_000)


def run() -> list[Row]:
    rows = []
    for n_atoms in SIZES:
        found = in_child("perf.bench_memory", "child", {"n_atoms": n_atoms})
        system = f"{n_atoms} atoms, {found['n_neighbors']:.0f} neighbors, 6.5 A"
        target = "<= 0.8" if n_atoms == SIZES[-1] else ""
        rows.append(Row("peak, whole process", system, "GB", found["peak"] / 1e9, target=target))
        rows.append(Row("of it before the prediction", system, "GB", found["before"] / 1e9))
        grown = (found["peak"] - found["before"]) / n_atoms / 1e3
        rows.append(Row("growth by the prediction", system, "kB/atom", grown))
    return rows


def child(n_atoms: int) -> dict:
    """Predict once for small, then for `n_atoms`; bytes."""
    from gmcore.engine.neighbors import build_pairs
    from gmcore.engine.structures import Batch
    from gmcore.model import Model
    from perf.systems import bulk, model_parts

    settings, member = model_parts()
    model = Model(settings, [member], "float32")
    keys = ("energy", "forces")
    model.predict(bulk(64), keys)
    atoms = bulk(n_atoms)
    before = peak_memory()
    model.predict(atoms, keys)
    peak = peak_memory()
    n_pairs = build_pairs(Batch.from_atoms(atoms), model.cutoff).n_pairs
    return {"before": before, "peak": peak, "n_neighbors": n_pairs / n_atoms}
