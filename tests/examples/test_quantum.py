"""examples/ipi/quantum.py: the harmonic ring polymer between its two limits, and the files of i-PI."""

from __future__ import annotations

import importlib.util

import numpy as np

from gmcore.analysis.modes import thermal_variance
from support.places import ROOT


def quantum():
    spec = importlib.util.spec_from_file_location("quantum", ROOT / "examples" / "ipi" / "quantum.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_bead_is_classical_and_many_are_quantum():
    frequencies = np.array([30.0, 400.0, 3000.0])
    variance = quantum().bead_variance
    np.testing.assert_allclose(variance(frequencies, 300.0, 1), thermal_variance(frequencies, 300.0, False), rtol=1e-9)
    np.testing.assert_allclose(variance(frequencies, 300.0, 2000), thermal_variance(frequencies, 300.0), rtol=1e-4)


def test_files_of_beads(tmp_path):
    for bead in range(2):
        frame = "1\n# CELL\nHe {0} 0 0\n"
        (tmp_path / f"run.positions_{bead}.xyz").write_text("".join(frame.format(bead + step) for step in range(3)))
        rows = [" ".join(str(float(9 * bead + k + step)) for k in range(9)) for step in range(2)]
        text = "".join(f" #EXTRAS(d_tensor)# Step: {k}\n {row}\n" for k, row in enumerate(rows))
        (tmp_path / f"run.d_{bead}").write_text(text)
    positions, tensors = quantum().read_beads(str(tmp_path / "run"))
    assert positions[:, :, 0, 0].tolist() == [[0, 1], [1, 2]]  # a frame whose D is not yet written is left out
    assert tensors[1, 1].ravel().tolist() == list(range(10, 19))
