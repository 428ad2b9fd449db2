"""What is compared: the packages of each peer, and one row for each model. Edit here to add, drop or resize a model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peer:
    """One package, or a pair of which one trains and the other predicts.

    packages : installed by name into an environment of the peer's own; empty: the environment that runs this script.
    versions : packages whose versions are kept with the results.
    absent : why there is nothing to run; what was seen, with the version.
    """

    packages: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    absent: str = ""


@dataclass(frozen=True)
class Model:
    """A row: `options` are those of the peer's own module, perf/pareto/fit_PEER.py."""

    name: str
    peer: str
    options: dict = field(default_factory=dict)


PEERS = {
    "gmtensor": Peer(versions=("numpy", "numba", "tensorflow", "keras")),
    "apax": Peer(("apax>=0.14,<0.15",), ("apax", "jax", "numpy")),
    "nep": Peer(("neppo>=1.0,<2", "nep-adapters>=1.0.3,<2"), ("neppo", "nep-adapters", "torch", "numpy")),
    "ace": Peer(("ace-jax>=0.4.1,<0.5",), ("ace-jax", "jax", "numpy")),
    "mtp": Peer(
        absent="motep 0.2.0 starts a training from an untrained potential, a file of another program that lists the "
        "moments (it stops without initial.mtp), and contains no such file."
    ),
}


def _gmtensor(hidden: int, n_radial: int) -> Model:
    name = f"gmtensor {hidden}-{hidden} n{n_radial}"
    options = {"network": {"hidden": [hidden, hidden]}, "descriptor": {"n_radial": n_radial}}
    return Model(name, "gmtensor", options)


def _apax(hidden: int, n_radial: int = 5) -> Model:
    return Model(f"apax {hidden}-{hidden} n{n_radial}", "apax", {"nn": [hidden, hidden], "n_radial": n_radial})


MODELS = (
    _gmtensor(32, 4),
    _gmtensor(64, 5),  # the preset fast
    _gmtensor(64, 6),
    _gmtensor(128, 7),
    _gmtensor(128, 8),  # the preset standard
    _apax(64),
    _apax(256),
    Model("NEP 30", "nep", {"neurons": [30]}),
    Model("NEP 80 5-body", "nep", {"neurons": [80], "n_max": 8, "n_basis": 10, "l_max_5b": 1}),
    Model("ACE order 2 degree 12", "ace", {"order": 2, "degree": 12}),
    Model("ACE order 3 degree 7", "ace", {"order": 3, "degree": 7}),
    Model("ACE order 3 degree 8", "ace", {"order": 3, "degree": 8}),
    Model("MTP", "mtp"),
)

SMOKE = Model(
    "gmtensor smoke",
    "gmtensor",
    {"network": {"hidden": [16, 16]}, "descriptor": {"n_radial": 3}, "training": {"epochs": 3}},
)


def chosen(only: list[str]) -> list[Model]:
    """Return the models with one of these names, or of one of these peers; all for an empty list.

    Raises
    ------
    ValueError : a name that is neither.
    """
    names = [model.name for model in MODELS]
    for name in only:
        if name not in (*PEERS, *names):
            raise ValueError(
                f"names are those of peers ({', '.join(PEERS)}) or models ({', '.join(names)}), got {name!r}"
            )
    return [model for model in MODELS if not only or model.name in only or model.peer in only]
