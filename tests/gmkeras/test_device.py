"""Training with the descriptor on the device, and on several replicas; each in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from support.places import TESTS, environment

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from gmcore.errors import GMError  # noqa: E402
from gmkeras import backends  # noqa: E402
from gmkeras.distribution import distributed_batches, global_share  # noqa: E402
from support.keras_models import keras_model, mixed_frames, prepared  # noqa: E402
from support.tolerances import TOLERANCE  # noqa: E402

pytestmark = pytest.mark.slow


def started(script: str, **variables: str) -> subprocess.Popen:
    settings = environment(TF_CPP_MIN_LOG_LEVEL="3", **variables)
    command = [sys.executable, str(TESTS / "support" / script)]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(process: subprocess.Popen) -> dict:
    """What a script prints as its last line."""
    output, errors = process.communicate(timeout=300)
    if process.returncode:
        raise AssertionError(errors[-3000:])
    return json.loads(output.splitlines()[-1])


def run(script: str, **variables: str) -> dict:
    return result_of(started(script, **variables))


def test_a_training_step_in_the_simulator_equals_the_cpu():
    errors = run("keras_device_checks.py", NUMBA_ENABLE_CUDASIM="1")
    assert errors.keys() == {"energy", "d_tensor"}
    assert max(errors.values()) < TOLERANCE["second", "float64"]


@pytest.mark.gpu
def test_a_training_step_on_the_device_equals_the_cpu():
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU")
    errors = run("keras_device_checks.py")
    assert max(errors.values()) < TOLERANCE["second", "float64"]


def test_two_replicas_train_as_one():
    result = run("keras_distributed_checks.py")
    assert result["n_moved"] >= 8
    assert result["weights"] < 1e-6  # Adam divides by the root of tiny second moments
    one, two = result["losses"]
    assert two == pytest.approx(one, rel=1e-8)


def test_two_processes_train_as_one():
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        workers = [f"127.0.0.1:{server.getsockname()[1]}" for server in (first, second)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": k}} for k in range(2)]
    processes = [started("keras_distributed_checks.py", TF_CONFIG=json.dumps(task)) for task in tasks]
    try:
        result, other = (result_of(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert result == other
    assert result["n_moved"] >= 8
    assert result["weights"] < 1e-6
    one, two = result["losses"]
    assert two == pytest.approx(one, rel=1e-8)


def test_the_cpu_where_tensorflow_has_no_gpu(monkeypatch):
    monkeypatch.setattr(backends, "tensorflow_has_gpu", lambda: False)
    assert isinstance(backends.choose_backend(), backends.HostBackend)


def test_a_gpu_without_the_extra_is_a_warning(monkeypatch):
    monkeypatch.setattr(backends, "tensorflow_has_gpu", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = "TensorFlow sees a GPU, the descriptor computes on the CPU: device='cuda' needs CuPy"
    with pytest.warns(UserWarning, match=message):
        assert isinstance(backends.choose_backend(), backends.HostBackend)


def test_a_batch_must_have_a_structure_for_each_worker():
    _, settings, _ = keras_model(("energy",), n_radial=1)
    strategy = tf.distribute.get_strategy()
    data = prepared(settings, mixed_frames(), ("energy",))
    assert distributed_batches(strategy, data, 3) is not None
    two = type("Two", (), {"num_replicas_in_sync": 2})()
    with pytest.raises(GMError, match=r"a structure for each of the 2 workers, got 1 in the last one"):
        distributed_batches(two, data, 3)


def test_data_that_tensorflow_would_cut_by_rows_are_refused(monkeypatch):
    model, settings, _ = keras_model(("energy",), {"energy": 1.0}, n_radial=1)
    model.compile(loss_weights={"energy": 1.0})
    data = prepared(settings, mixed_frames(), ("energy",)).dataset(2)
    two = type("Two", (), {"num_replicas_in_sync": 2})()
    monkeypatch.setattr(type(model), "distribute_strategy", two)
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=f"{call.__name__} with several workers needs batches that are split"):
            call(data)
    with pytest.raises(ValueError, match="predict is not possible with several workers: write the model with to_file"):
        model.predict(mixed_frames())


def test_one_worker_has_the_whole_share():
    assert float(global_share(tf.constant(7))) == 1.0
