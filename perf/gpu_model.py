"""What should limit each kernel on a card, and what time that makes: counted before any card was seen.

    python -m perf gpu_model           the table for an H100
    python -m perf gpu_model --write   operations and widths of loads anew, into perf/gpu_counts.json (a minute)

A launch takes the longest of three times: its bytes over the bandwidth, its operations over the arithmetic, or, where
too few blocks fill the card, the operations that one thread does one after another; and the gap to the next node of
the graph. Operations are counted (`perf.count_operations`), registers come from the compiler (`cuda_budget.json`),
bytes are those of the arrays. The shares of the published rates that kernels reach are assumptions, each stated below.
All times are predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gmcore.config.presets import PRESETS
from gmcore.kernels.contractions_cpu import n_features

ROOT = Path(__file__).resolve().parents[1]
COUNTS = Path(__file__).with_name("gpu_counts.json")
BUDGET = Path(__file__).with_name("cuda_budget.json")
COUNTED_PAIRS = 96
MAX_CHUNK = 32768
PRODUCT = "cuBLAS product"


class Card(NamedTuple):
    """Published figures of a card.

    bandwidth : bytes/s; flops : float32 without tensor cores, a fused multiply-add is two; clock : Hz; cache : bytes of
    the L2; the others are per multiprocessor.
    """

    name: str
    bandwidth: float
    flops: float
    multiprocessors: int
    clock: float
    cache: float
    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    shared: int = 228 * 1024


# Bandwidth, arithmetic and L2: NVIDIA H100 datasheet (SXM5). Multiprocessors and clock: NVIDIA H100 architecture white
# paper. Limits of a multiprocessor: Hopper Tuning Guide, "Occupancy".
H100 = Card("H100 SXM5", 3.35e12, 67e12, 132, 1.755e9, 50e6)

GAP = 0.5e-6
"""Seconds between two nodes of a graph: 3.4 us per kernel of 2.9 us ("Getting Started with CUDA Graphs", NVIDIA)."""
LEAST = 2.0e-6
"""Seconds of a kernel that does next to nothing: start, two or three trips to memory, end. Assumed."""
BANDWIDTH_SHARE = 0.85
"""Of the published bandwidth that streams of adjacent numbers reach. Assumed."""
PRODUCT_SHARE = 0.75
"""Of the float32 rate that large products of cuBLAS reach. Assumed."""
KERNEL_SHARE = 0.25
"""Of the float32 rate that our loops reach: half of their instructions are loads, addresses and sums that do not fuse,
and issue slots stay empty at their occupancy. Assumed."""
CYCLES = 5.0
"""Cycles from an operation to the next one that needs it, in a warp that has its scheduler to itself. Assumed."""
TILE = 64
"""Rows and columns of a product that one block of cuBLAS computes where the product is small. Assumed."""
SECTOR = 40.0
"""Bytes that reading 12 scattered bytes moves: one or two sectors of 32."""


class Network(NamedTuple):
    """A model: sizes of its descriptor and network, and how many members."""

    name: str
    n_radial: int
    n_basis: int
    hidden: tuple[int, ...]
    n_features: int
    n_members: int = 1


class System(NamedTuple):
    """What is computed: n_pairs per atom; target in us, per atom or for the step."""

    name: str
    network: Network
    n_atoms: int
    n_pairs: float
    n_structures: int
    target: str


def network_of(preset: str) -> Network:
    """A single model of the size of a preset."""
    sizes, hidden = PRESETS[preset]["descriptor"], PRESETS[preset]["hidden"]
    n_radial = sizes["n_radial"]
    return Network(preset, n_radial, sizes["n_basis"], tuple(hidden), n_features(n_radial))


PAPER, FAST = network_of("paper"), network_of("fast")
SYSTEMS = {
    "energy_forces": System("energy + forces, 1e5 atoms", PAPER, 100_000, 100, 1, "<= 0.15 us/atom"),
    "fast": System("the same, preset fast", FAST, 100_000, 46, 1, "<= 0.05 us/atom"),
    "md_step": System("256 atoms, one model", PAPER, 256, 100, 1, "<= 80 us a step"),
    "replicas": System("8 x 53 atoms, committee of three", PAPER._replace(n_members=3), 424, 40, 8, "<= 150 us a step"),
}


class Launch(NamedTuple):
    """One launch: bytes moved, operations, blocks, threads of a block, operations of one thread in a row."""

    name: str
    bytes: float
    operations: float
    blocks: int = 1
    threads: int = 128
    path: float = 0.0
    shared: int | None = None


def chunks(n_atoms: int) -> list[int]:
    """Atoms of each chunk."""
    return [min(MAX_CHUNK, n_atoms - first) for first in range(0, n_atoms, MAX_CHUNK)]


def step_launches(system: System) -> list[Launch]:
    """What energy and forces launch, in order; a test compares the names with what is launched."""
    net, n_atoms, counts = system.network, system.n_atoms, operations_of(system.network)
    m = net.n_members
    moment_bytes, pairs = 4.0 * 16 * net.n_radial, system.n_pairs
    apart = 1 if m * n_atoms <= MAX_CHUNK else m  # launches for members of large systems
    together, rows = m // apart, 16

    def per_pair(name: str) -> float:
        return counts[name] / COUNTED_PAIRS * pairs

    found = [
        Launch(
            "moments_cuda.forward", m * n_atoms * (8 * pairs + moment_bytes + 40),
            m * n_atoms * per_pair("moments_cuda.forward"), m * n_atoms, 64,
            _serial(counts, "moments_cuda.forward", pairs, 2),
        )
    ]  # fmt: skip
    for n in chunks(n_atoms):
        whole = n == n_atoms  # then the arrays of all members lie in one piece
        parts, size = (1, m * n) if whole else (m, n)
        shared = 4 * 17 * (20 * net.n_radial + net.n_features)
        for name, numbers in (("forward_centered", net.n_features), ("backward", net.n_features + 16 * net.n_radial)):
            operations = counts[f"contractions_cuda.{name}"]
            one = Launch(
                f"contractions_cuda.{name}", size * (moment_bytes + 4 * numbers), size * operations,
                -(-size // rows), rows * net.n_radial, operations / net.n_radial, shared,
            )  # fmt: skip
            if name == "forward_centered":
                found += parts * [one] + list(_network_launches(net, n, counts))
            else:
                found += parts * [one]
    for _ in range(apart):
        k = together * n_atoms
        scattered = SECTOR if 12 * k * pairs > H100.cache else 12.0
        n_parts = max(1, min(256, -(-n_atoms // (1024 * system.n_structures))))
        found += [
            Launch(
                "moments_cuda.backward", k * ((8 + 12) * pairs + moment_bytes + 36 + 40),
                k * per_pair("moments_cuda.backward"), k, 32, _serial(counts, "moments_cuda.backward", pairs),
            ),
            Launch("pair_sums_cuda.sum_positions", k * ((4 + 12 + scattered) * pairs + 24), k * 6 * pairs, k, 32, 40),
            Launch("pair_sums_cuda.sum_strain_parts", k * 36, k * 9, system.n_structures * n_parts, 128, 150),
        ]  # fmt: skip
        if n_parts > 1:
            found.append(Launch("pair_sums_cuda.sum_strain", 72 * n_parts, 9 * n_parts, 1, 128, n_parts))
    largest = n_atoms / system.n_structures
    while True:
        found.append(Launch("segments_cuda.sum_segments", 8 * m * n_atoms, m * n_atoms, 1, 128, 60))
        if largest <= 1024:
            return found
        largest /= 1024


def _network_launches(net: Network, n: int, counts: dict[str, float]) -> Iterable[Launch]:
    """Up and down again, for n atoms."""
    m, h = net.n_members, net.hidden
    sizes = (net.n_features, *h)
    for layer, (columns, width) in enumerate(zip(sizes, h)):
        yield _product(m, n, columns, width)
        if layer + 1 < len(h):
            elements = m * n * width
            yield Launch(
                "network_cuda.activate", 12 * elements, elements * _per_column(counts, "activate", net),
                -(-elements // 1024), 128, 8 * _per_column(counts, "activate", net),
            )  # fmt: skip
    elements = m * n * h[-1]
    lanes = min(128, max(32, h[-1]))
    operations = elements * _per_column(counts, "output_layer", net)
    yield Launch(
        "network_cuda.output_layer", 8 * elements, operations, m * n * lanes // 128, 128, operations / (m * n * lanes),
        4 * (h[-1] + lanes) * 128 // lanes,
    )  # fmt: skip
    for layer in range(len(h) - 1, 0, -1):
        yield _product(m, n, h[layer], h[layer - 1])
        elements = m * n * h[layer - 1]
        yield Launch("network_cuda.multiply", 12 * elements, elements, -(-elements // 1024), 128, 8)
    yield _product(m, n, h[0], net.n_features)


def _per_column(counts: dict[str, float], name: str, net: Network) -> float:
    return counts[f"network_cuda.{name}"] / net.hidden[0]


def _serial(counts: dict[str, float], name: str, pairs: float, n_warps: int = 1) -> float:
    """Operations of one lane: its share of every 32 pairs for each of its warps, begun or full."""
    return counts[name] / COUNTED_PAIRS * -(-pairs // (32 * n_warps))


def _product(m: int, rows: int, inner: int, columns: int) -> Launch:
    blocks = m * -(-rows // TILE) * -(-columns // TILE)
    moved = 4.0 * m * (rows * inner + inner * columns + rows * columns)
    return Launch(PRODUCT, moved, 2.0 * m * rows * inner * columns, blocks, 256)


class Prediction(NamedTuple):
    """Seconds of a launch, what limits it, and the share of the warps of a multiprocessor that are there."""

    seconds: float
    limit: str
    occupancy: float


def predict(launch: Launch, card: Card = H100) -> Prediction:
    """Time of one launch, and of the gap after it."""
    occupancy = occupancy_of(launch, card)
    if launch.name == PRODUCT:
        fill = min(1.0, launch.blocks / card.multiprocessors)
        arithmetic = launch.operations / (card.flops * PRODUCT_SHARE * fill)
    else:
        arithmetic = launch.operations / (card.flops * KERNEL_SHARE)
    times = {
        "bytes": launch.bytes / (card.bandwidth * BANDWIDTH_SHARE),
        "arithmetic": arithmetic,
        "latency": LEAST + launch.path * CYCLES / card.clock,
    }
    limit = max(times, key=lambda name: times[name])
    return Prediction(times[limit] + GAP, limit, occupancy)


def occupancy_of(launch: Launch, card: Card = H100) -> float:
    """Share of the warps of a multiprocessor that registers, shared memory and blocks allow; 0 for cuBLAS."""
    if launch.name == PRODUCT:
        return 0.0
    taken = _budget()[launch.name]
    taken = taken.get("float32", taken.get("float64"))["9.0"]
    shared = launch.shared if launch.shared is not None else taken["shared"]
    warps = -(-launch.threads // 32)
    blocks = min(
        card.blocks, card.warps // warps, card.registers // (32 * warps * taken["registers"]),
        card.shared // (shared + 1024),  # a block takes a kilobyte for itself
    )  # fmt: skip
    return blocks * warps / card.warps


def predicted(key: str, card: Card = H100) -> tuple[float, int]:
    """Seconds of a step of one of `SYSTEMS`, and its launches."""
    launches = step_launches(SYSTEMS[key])
    return sum(predict(launch, card).seconds for launch in launches), len(launches)


def predicted_cell(key: str) -> str:
    """For the tables of `perf.card`: the time of a step, per atom where the target is; "" where none is predicted."""
    if key not in SYSTEMS:
        return ""
    seconds, _ = predicted(key)
    system = SYSTEMS[key]
    return f"{1e6 * seconds / system.n_atoms:.3f} us/atom" if "atom" in system.target else f"{1e6 * seconds:.0f} us"


def kernel_times(key: str, card: Card = H100) -> dict[str, float]:
    """Seconds of every kernel of a step, all its launches together."""
    times: dict[str, float] = {}
    for launch in step_launches(SYSTEMS[key]):
        times[launch.name] = times.get(launch.name, 0.0) + predict(launch, card).seconds
    return times


def operations_of(network: Network) -> dict[str, float]:
    """Counted operations per atom."""
    return json.loads(COUNTS.read_text())["operations"][network.name]


def _budget() -> dict:
    return json.loads(BUDGET.read_text())


# printing and counting -----------------------------------------------------------------------------------------------


def lines(key: str, card: Card = H100) -> list[str]:
    """Table of a system."""
    system, widths = SYSTEMS[key], json.loads(COUNTS.read_text())["loads"]
    rows: dict[str, list] = {}
    for launch in step_launches(system):
        found = predict(launch, card)
        row = rows.setdefault(launch.name, [0, 0.0, 0.0, 0.0, found])
        row[0] += 1
        row[1] += launch.bytes
        row[2] += launch.operations
        row[3] += found.seconds
    seconds, n_launches = predicted(key, card)
    text = [
        f"{system.name}, {card.name}, float32: predicted {1e6 * seconds:.0f} us, {1e6 * seconds / system.n_atoms:.3f} "
        f"us/atom, {n_launches} launches; target {system.target}",
        f"  {'kernel':36}{'launches':>9}{'MB':>9}{'MFLOP':>9}{'registers':>11}{'occupancy':>11}{'wide loads':>12}"
        f"{'limit':>12}{'us':>8}",
    ]
    for name, (n, moved, operations, time, found) in sorted(rows.items(), key=lambda item: -item[1][3]):
        own = name != PRODUCT
        registers = (_budget()[name].get("float32") or _budget()[name]["float64"])["9.0"]["registers"] if own else ""
        wide = "{} of {}".format(*widths[name]) if own else ""
        text.append(
            f"  {name:36}{n:9}{moved / 1e6:9.2f}{operations / 1e6:9.1f}{registers:>11}"
            f"{f'{found.occupancy:.0%}' if own else '':>11}{wide:>12}{found.limit:>12}{1e6 * time:8.1f}"
        )
    return text


def count() -> dict:
    """Operations, and wide and all global loads in the code of every kernel of a step for capability 9.0."""
    from perf import cuda_compile

    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "perf.count_operations"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    names = sorted({launch.name for key in SYSTEMS for launch in step_launches(SYSTEMS[key])} - {PRODUCT})
    loads = {}
    for name in names:
        dtype = cuda_compile.dtypes_of(name)[0]
        loads[name] = load_widths(cuda_compile.compile_ptx(name, dtype, (9, 0)))
    return {"operations": json.loads(done.stdout), "loads": loads}


def load_widths(ptx: str) -> list[int]:
    """Number of loads from global memory of more than one number at a time, and of all.

    >>> load_widths("ld.global.v4.f32 {...}; ld.global.f32 %f1; ld.shared.f32 %f2;")
    [1, 2]
    """
    every = re.findall(r"\bld\.global(?:\.nc)?(\.v\d)?\.", ptx)
    return [sum(map(bool, every)), len(every)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf gpu_model", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"count anew, into {COUNTS.name}")
    if parser.parse_args(arguments).write:
        COUNTS.write_text(json.dumps(count(), indent=1) + "\n")
    for key in SYSTEMS:
        print("\n".join(lines(key)), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
