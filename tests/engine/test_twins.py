"""Classes of the GPU and their twins on the CPU: methods that both have take equal arguments with equal defaults."""

from __future__ import annotations

import inspect

import pytest

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.evaluator_cuda import DeviceEvaluator
from gmcore.engine.neighbors import NeighborList
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.stages import Contractions, Moments
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments

TWINS = [
    (Moments, DeviceMoments, {"__init__", "pack", "forward", "backward", "double_backward"}),
    (Contractions, DeviceContractions, {"__init__", "forward", "backward", "double_backward"}),
    (NeighborList, DeviceNeighborList, {"__init__", "update"}),
    (
        Evaluator,
        DeviceEvaluator,
        {"__init__", "evaluate", "evaluate_vectors", "extrapolation", "find_pairs", "neighbor_list"},
    ),
]
# The networks are no twins: that of the CPU is one member, on the device all members are one stack with a workspace.

ONLY_ON_THE_DEVICE = {
    "device": "the first argument of every constructor; the CPU needs no handle",
    "out": "arrays to write to, so that a step allocates nothing and can be recorded as a graph",
    "matmul": "TF32 is a precision of the tensor cores",
}


def parameters(function) -> list[tuple]:
    """Name, kind and default of every argument."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def methods(cls: type) -> set[str]:
    """Methods that a class defines itself, private ones apart."""
    return {
        name for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")
    } | {"__init__"}  # fmt: skip


@pytest.mark.parametrize(("host", "device", "common"), TWINS, ids=[host.__name__ for host, _, _ in TWINS])
def test_twins_have_equal_signatures(host, device, common):
    assert methods(host) & methods(device) == common
    for name in common:
        found = parameters(getattr(device, name))
        kept = [parameter for parameter in found if parameter[0] not in ONLY_ON_THE_DEVICE]
        assert kept == parameters(getattr(host, name)), name
        if name == "__init__":
            assert found[1][0] == "device"


def test_every_exception_is_needed():
    used = {p[0] for _, device, common in TWINS for name in common for p in parameters(getattr(device, name))}
    assert used >= ONLY_ON_THE_DEVICE.keys()
