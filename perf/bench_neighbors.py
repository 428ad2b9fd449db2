"""Full periodic neighbor lists, 100 neighbors within 6.5 A: gmtensor, vesin, matscipy; each gives pairs and shifts.

gmtensor uses all threads of the run; vesin and matscipy have one each.
"""

from __future__ import annotations

from gmcore.engine.neighbors import NeighborList, build_pairs
from gmcore.engine.structures import Batch
from perf.harness import compare
from perf.peers import matscipy_pairs, vesin_pairs
from perf.report import Row
from perf.systems import bulk

CUTOFF, SKIN = 6.5, 0.5


def run() -> list[Row]:
    return [row for n_atoms in (1_000, 10_000, 100_000) for row in _rows(n_atoms)]


def _rows(n_atoms: int) -> list[Row]:
    atoms = bulk(n_atoms)
    batch = Batch.from_atoms(atoms)
    moved = Batch.from_arrays(batch.positions + 0.01, batch.numbers, batch.cells, batch.pbc)
    skinned = NeighborList(CUTOFF, SKIN)
    skinned.update(batch)
    peers = {"vesin": vesin_pairs(atoms, CUTOFF), "matscipy": matscipy_pairs(atoms, CUTOFF)}
    functions = {
        "gmtensor": lambda: build_pairs(batch, CUTOFF),
        "gmtensor, a skin found to serve": lambda: skinned.update(moved),
    }
    own = list(functions)
    functions |= {name: function for name, function in peers.items() if function is not None}
    timed = compare(functions, sample_s=0.02, rounds=(5, 21))

    system = f"{n_atoms} atoms, {build_pairs(batch, CUTOFF).n_pairs / n_atoms:.0f} neighbors, 6.5 A"
    rows = [Row.timed(timed, name, system, "ms") for name in own]
    for name, function in peers.items():
        if function is None:
            rows.append(Row(name, system, "ms", note=f"{name}: not installed"))
        else:
            target = ">= 1" if n_atoms == 100_000 else ""
            rows.append(Row.timed(timed, name, system, "ms", to="gmtensor", target=target))
    return rows
