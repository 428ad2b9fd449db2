"""Figures: files appear, every text lies inside the page, nothing global is touched, labels carry units."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from gmcore.evaluation import figures
from gmcore.evaluation.figures import FigureError, learning_curve, loss_curves, parity, parity_figures


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Every figure that is saved during the test, after a check that no text is cut off or overlaps its neighbors."""
    seen = []
    save = Figure.savefig

    def inspect(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        figure.canvas.draw()  # a PDF leaves the layout in points, this brings it back to pixels
        renderer = figure.canvas.get_renderer()
        page = figure.bbox
        for axes in figure.axes:
            texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
            texts = [t for t in texts if t.get_text()]
            for text in texts:
                box = text.get_window_extent(renderer)
                assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1, text
            low, high = sorted(axes.get_xlim())
            labels = [t for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            boxes = [t.label1.get_window_extent(renderer) for t in labels if t.label1.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        seen.append(figure)

    monkeypatch.setattr(Figure, "savefig", inspect)
    return seen


def sample(rng, n: int = 20) -> tuple[dict, dict]:
    tensor = rng.normal(size=(n, 3, 3))
    reference = {
        "energy": -2877.0 + rng.normal(size=n),
        "forces": [rng.normal(size=(5 + k % 3, 3)) for k in range(n)],
        "stress": 1e-4 * (tensor + tensor.swapaxes(1, 2)),
        "charges": [rng.normal(size=5 + k % 3) for k in range(n)],
        "dipole": rng.normal(size=(n, 3)),
        "d_tensor": 30.0 * (tensor + tensor.swapaxes(1, 2)),
    }
    return reference, {key: [1.05 * np.asarray(v) for v in values] for key, values in reference.items()}


def test_parity_of_every_quantity(tmp_path, rng, drawn):
    reference, predicted = sample(rng)
    paths = parity_figures(tmp_path / "figures", reference, predicted)
    assert [path.name for path in paths] == [f"parity_{key}.png" for key in reference]
    for path in paths:
        assert imread(path).shape[0] > 600
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(p.name for p in paths)
    labels = [figure.axes[0].get_xlabel() for figure in drawn]
    units = ["eV", "(eV/Å)", "(eV/Å$^3$)", "e", "e Å", "cm$^{-1}$"]
    assert labels == [f"reference / {unit}" for unit in units]
    legend = drawn[-1].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["xx", "xy", "xz", "yy", "yz", "zz"]


def test_parity_leaves_out_what_has_no_label(tmp_path, rng, drawn):
    reference, predicted = sample(rng, 4)
    reference["stress"] = np.full((4, 3, 3), np.nan)
    assert "parity_stress.png" not in [path.name for path in parity_figures(tmp_path, reference, predicted)]
    with pytest.raises(FigureError, match="needs labeled values, but the data have none"):
        parity(tmp_path / "a.png", "stress", reference["stress"], predicted["stress"])
    with pytest.raises(FigureError, match="no parity plot for 'spin'; known: energy"):
        parity(tmp_path / "a.png", "spin", [1.0], [1.0])


@pytest.mark.parametrize("n", [1, 5000])
def test_parity_of_one_value_and_of_many(tmp_path, rng, drawn, n):
    energy = np.full(n, 7.0) if n == 1 else rng.normal(size=n)
    assert parity(tmp_path / "energy.pdf", "energy", energy, energy, title="one").read_bytes()[:4] == b"%PDF"
    assert drawn[0].axes[0].get_title() == "one"


def test_loss_curves_of_a_committee(tmp_path, rng, drawn):
    epochs = np.arange(1, 101)
    history = {
        "loss": 100.0 / epochs,
        "val_loss": np.where(epochs % 5 == 0, 120.0 / epochs, np.nan),
        "mae_d_tensor": 5.0 / epochs,
        "learning_rate": np.linspace(1e-2, 0, 100),
        "val_forces_mae": np.linspace(-1.0, 1.0, 100),
        "empty": np.full(100, np.nan),
    }
    loss_curves(tmp_path / "loss.png", [history, history, {"loss": [3.0]}], units={"loss": "arb"})
    panels = drawn[0].axes
    assert [axes.get_ylabel() for axes in panels] == [
        "loss / arb",
        "MAE D tensor / cm$^{-1}$",
        "learning rate",
        "forces MAE / (eV/Å)",
    ]
    assert [axes.get_yscale() for axes in panels] == ["log", "log", "linear", "linear"]
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["training", "validation"]
    np.testing.assert_array_equal(panels[0].lines[1].get_xdata(), epochs[4::5])
    with pytest.raises(FigureError, match="at least one finite value"):
        loss_curves(tmp_path / "none.png", {"loss": [np.nan]})


@pytest.mark.parametrize("sizes", [[100], [100, 200], [56, 112, 225, 450], [100, 200, 300, 700, 900, 1500, 2000, 2900]])
def test_learning_curve(tmp_path, drawn, sizes):
    sizes = np.array(sizes)
    fits = learning_curve(tmp_path / "curve.png", sizes, 30.0 * sizes**-0.5, 90.0 * sizes**-0.5)
    axes = drawn[0].axes[0]
    assert axes.get_ylabel() == "error of D tensor elements / cm$^{-1}$"
    assert len(axes.lines) == 2 * (len(sizes) > 1)
    assert len(axes.collections) == 2 + 2 * (len(sizes) > 2)  # points, bands
    if len(sizes) > 1:
        assert fits["mae"].slope == pytest.approx(-0.5) and fits["rmse"].slope == pytest.approx(-0.5)
    with pytest.raises(FigureError, match="at least one training size"):
        learning_curve(tmp_path / "none.png", [], [], [])


def test_colors_differ_in_lightness_or_hue_for_every_eye():
    assert len(set(figures.COLORS)) == len(set(figures.MARKERS)) == 6


def test_neither_matplotlib_at_import_nor_pyplot_ever(tmp_path):
    code = (
        "import sys, gmcore.evaluation.figures as f; assert 'matplotlib' not in sys.modules;"
        f"f.loss_curves({str(tmp_path / 'loss.png')!r}, {{'loss': [3.0, 1.0]}});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_matplotlib_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FigureError, match="figures need matplotlib: pip install matplotlib"):
        loss_curves(tmp_path / "loss.png", {"loss": [1.0]})
