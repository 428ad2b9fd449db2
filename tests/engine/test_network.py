"""The inference network against the slow twin, its derivative against the complex step, its work arrays."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from gmcore.engine import network as network_module
from gmcore.engine import reference
from gmcore.engine.network import BLOCK, COLUMNS, Network
from gmcore.errors import GMError
from gmcore.threads import get_threads, serial_blas, set_threads
from support.networks import make_member
from support.places import environment
from support.tolerances import TOLERANCE, relative_error


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("sizes", [(9, 1), (9, 7, 1), (360, 64, 48, 1), (94, 20, 12, 8, 5)], ids=str)
def test_value_and_derivative(rng, sizes, dtype):
    member, n_atoms = make_member(rng, sizes), 23
    features = rng.normal(size=(n_atoms, sizes[0]))
    g_outputs = rng.normal(size=(n_atoms, sizes[-1]))
    network = Network(member, dtype)
    outputs, g_features = network.forward(features), network.backward(g_outputs)
    assert outputs.dtype == g_features.dtype == dtype
    assert relative_error(outputs, reference.network(features, member)) < TOLERANCE["value", dtype]

    def total(direction_step):
        return (g_outputs * reference.network(features + direction_step * direction, member)).sum()

    direction = rng.normal(size=features.shape)
    expected = reference.complex_step(total, 0.0)
    assert relative_error((g_features * direction).sum(), expected) < TOLERANCE["gradient", dtype] * 10


def test_every_element_of_the_derivative(rng):
    member = make_member(rng, (6, 5, 4, 2))
    features, g_outputs = rng.normal(size=(3, 6)), rng.normal(size=(3, 2))
    network = Network(member, "float64")
    network.forward(features)
    expected = reference.complex_step(lambda g: (g_outputs * reference.network(g, member)).sum(), features)
    assert relative_error(network.backward(g_outputs), expected) < TOLERANCE["gradient", "float64"]


def test_saturated_units_stay_finite(rng):
    member = make_member(rng, (4, 3, 1))
    for size in (1e3, 1e6):
        network = Network(member, "float32")
        outputs = network.forward(np.full((5, 4), size) * rng.choice([-1, 1], (5, 4)))
        assert np.isfinite(outputs).all()
        assert np.isfinite(network.backward(np.ones((5, 1)))).all()


def test_nan_features_are_seen(rng):
    features = rng.normal(size=(2, 4))
    features[1, 2] = np.nan
    outputs = Network(make_member(rng, (4, 3, 1)), "float32").forward(features)
    assert np.isfinite(outputs[0]) and np.isnan(outputs[1])


def test_features_that_hardly_vary_keep_their_digits(rng):
    """A deviation a thousand times smaller than the mean, as along molecular dynamics."""
    member = make_member(rng, (300, 32, 1))
    member.feature_mean = rng.choice([-1000.0, 1000.0], 300)
    member.feature_std = np.ones(300)
    features = (member.feature_mean + rng.normal(size=(8, 300))).astype(np.float32)
    expected = reference.network(features.astype(float), member)
    assert relative_error(Network(member, "float32").forward(features), expected) < TOLERANCE["value", "float32"]


def test_work_arrays_serve_any_size(rng):
    """Growing, shrinking and empty calls give the same as a new network, and results do not change afterwards."""
    member = make_member(rng, (12, 9, 1))
    network, kept = Network(member, "float64"), []
    for n_atoms in (5, 40, 3, 0, 40):
        features, g_outputs = rng.normal(size=(n_atoms, 12)), rng.normal(size=(n_atoms, 1))
        outputs, fresh = network.forward(features), Network(member, "float64")
        assert np.array_equal(outputs, fresh.forward(features))
        assert np.array_equal(network.backward(g_outputs), fresh.backward(g_outputs))
        kept.append((outputs, outputs.copy()))
    assert all(np.array_equal(*pair) for pair in kept)


def test_inputs_are_left_alone(rng):
    features, g_outputs = rng.normal(size=(7, 12)), rng.normal(size=(7, 1))
    before = features.copy(), g_outputs.copy()
    network = Network(make_member(rng, (12, 9, 1)), "float64")
    network.forward(features)
    network.backward(g_outputs)
    assert np.array_equal(features, before[0]) and np.array_equal(g_outputs, before[1])


def test_many_blocks_equal_one(rng, monkeypatch):
    member, features = make_member(rng, (12, 9, 8, 1)), rng.normal(size=(101, 12))
    one = Network(member, "float64")
    values = one.forward(features), one.backward(np.ones((101, 1))).copy()
    monkeypatch.setattr(network_module, "BLOCK", 8)
    many = Network(member, "float64")
    assert relative_error(many.forward(features), values[0]) < TOLERANCE["identity", "float64"]
    assert relative_error(many.backward(np.ones((101, 1))), values[1]) < TOLERANCE["identity", "float64"]


def test_backward_needs_a_forward(rng):
    network = Network(make_member(rng, (4, 3, 1)), "float64")
    with pytest.raises(GMError, match=r"must follow a forward of its own"):
        network.backward(np.ones((2, 1)))
    network.forward(np.ones((2, 4)))
    network.backward(np.ones((2, 1)))
    with pytest.raises(GMError, match=r"got a second backward or none before it"):
        network.backward(np.ones((2, 1)))


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_serial_blas_restores_what_it_found():
    with serial_blas():
        pass  # the first use loads the library that kernels call
    before = blas_threads()
    with serial_blas(), serial_blas():
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_serial_blas_lets_in_one_thread_at_a_time():
    """The second waits for the first, so neither sees the other's restored number."""
    with serial_blas():
        pass
    before, seen = blas_threads(), []

    def second():
        with serial_blas():
            seen.append(blas_threads())

    thread = threading.Thread(target=second)
    with serial_blas():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive() and set(blas_threads()) == {1}
    thread.join()
    assert set(seen[0]) == {1}
    assert blas_threads() == before


def test_one_thread_gives_the_same():
    """In a process of its own, because the number of threads is a property of the process."""
    code = (
        "import numba, numpy as np\nnumba.set_num_threads(1)\n"
        "from gmcore.engine.network import Network\nfrom support.networks import make_member\n"
        "rng = np.random.default_rng(1)\nnetwork = Network(make_member(rng, (12, 9, 1)), 'float64')\n"
        "print(repr(float(network.forward(rng.normal(size=(50, 12))).sum())))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    rng = np.random.default_rng(1)
    network = Network(make_member(rng, (12, 9, 1)), "float64")
    assert float(run.stdout) == pytest.approx(float(network.forward(rng.normal(size=(50, 12))).sum()), rel=1e-12)


def test_no_copy_per_call(rng):
    """Work arrays are reused: ten calls leave no more memory behind than one."""
    import tracemalloc

    network = Network(make_member(rng, (360, 128, 1)), "float32")
    features = rng.normal(size=(500, 360)).astype(np.float32)
    network.forward(features), network.backward(np.ones((500, 1), np.float32))
    gc.collect()
    tracemalloc.start()
    for _ in range(10):
        network.forward(features)
        network.backward(np.ones((500, 1), np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < features.nbytes / 4


def test_a_worker_thread_gets_serial_blas_after_set_threads():
    """threadpoolctl lets only one Python thread control BLAS; setting a number must not claim that for good."""
    set_threads(get_threads())
    seen = []

    def work():
        with serial_blas():
            seen.append(blas_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(seen[0]) == {1}


@pytest.mark.parametrize("n_atoms", [0, 1, 5, 64, 511, 513, 1024, 5000])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 8, 12, 64])
def test_the_grid_covers_all_atoms_and_feeds_every_thread(n_atoms, n_threads):
    starts, n_columns = network_module._grid(n_atoms, n_threads)
    assert starts[0] == 0 and starts[-1] == n_atoms and (np.diff(starts) >= 0).all()
    assert np.diff(starts).max() <= BLOCK
    assert 1 <= n_columns <= COLUMNS
    assert (len(starts) - 1) * n_columns >= n_threads


@pytest.mark.parametrize(("n_atoms", "n_blocks", "n_columns"), [(7, 1, 3), (7, 3, 2), (2, 4, 5), (40, 2, 8)])
def test_every_grid_gives_the_same_numbers(rng, monkeypatch, n_atoms, n_blocks, n_columns):
    """Columns narrower than the number of blocks, blocks without atoms."""
    network = Network(make_member(rng, (12, 5, 9, 3)), "float64")
    features, g_outputs = rng.normal(size=(n_atoms, 12)), rng.normal(size=(n_atoms, 3))
    values = network.forward(features), network.backward(g_outputs).copy()
    starts = np.arange(n_blocks + 1) * n_atoms // n_blocks
    monkeypatch.setattr(network_module, "_grid", lambda *_: (starts, n_columns))
    assert relative_error(network.forward(features), values[0]) < TOLERANCE["identity", "float64"]
    assert relative_error(network.backward(g_outputs), values[1]) < TOLERANCE["identity", "float64"]
