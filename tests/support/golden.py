"""Features of one molecule from an independent implementation, which uses u = d / (r + 1e-5), in our order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

GUARD = 1e-5


def _triples(n: int):
    """Order of tr(M_r M_s M_t) in the files: per r first all (r, s, s), s = r leading, then r < s < t."""
    for r in range(n):
        yield from ((r, s, s) for s in [r, *(s for s in range(n) if s != r)])
        yield from ((r, s, t) for s in range(r + 1, n) for t in range(s + 1, n))


def load(folder: Path, n: int) -> dict[str, np.ndarray]:
    """Arrays of features_n.npz; the triples are the one block that the files list in an order of their own."""
    golden = dict(np.load(folder / "golden" / f"features_{n}.npz"))
    ours = [(r, s, t) for r in range(n) for s in range(r, n) for t in range(s, n)]
    start = n + 3 * n * (n + 1) // 2
    order = [ours.index(tuple(sorted(triple))) for triple in _triples(n)]
    features = golden["features"].copy()
    features[:, start + np.array(order)] = golden["features"][:, start : start + len(ours)]
    return golden | {"features": features}
