"""The page of a run: self-contained, complete, legible; missing results are explained; its numbers are in JSON."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import gmcore.commands.app
from gmcore.analysis.analyze import analyze
from gmcore.analysis.records import RecordError
from gmcore.analysis.sections.training import training_results
from gmcore.analysis.sections.trust import trust_lines
from gmcore.config.analysis import Analysis
from gmcore.outputs import OutputError
from gmcore.report.drawing import looks
from gmcore.report.export import export
from gmcore.report.html import write_report
from gmcore.report.numbers import (
    as_given,
    fixed,
    number,
    quantity_text,
    row_texts,
    unit_text,
    with_error,
    with_interval,
    with_unit,
)
from support.synthetic_runs import synthetic_run

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What is on a page: tags that are open, text, sources of pictures, anchors and links."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.words, self.images, self.anchors, self.links = [], [], [], set(), []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.images.append((attributes["src"], attributes["alt"]))
        self.anchors |= {attributes["id"]} if "id" in attributes else set()
        self.links += [attributes["href"]] if "href" in attributes else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)


def test_the_page_is_whole_and_needs_nothing_else(made):
    _, (path, _), seen = made
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.images) == len(seen) == 34
    assert all(source.startswith("data:image/svg+xml;base64,") and alt for source, alt in page.images)
    assert "http:" not in re.sub(r"<script>.*?</script>|data:[^\"]*", "", text, flags=re.S)
    assert "default-src 'none'" in text and text.count("<script") == 3
    assert {link.removeprefix("#") for link in page.links} <= page.anchors
    for k in range(1, 11):
        assert f"Figure {k}" in page.text and f"Table {k}" in page.text
    for paper in ("2", "3", "4", "5", "6", "S3"):
        assert f"cf. figure {paper} of" in page.text
    assert "Thermally averaged magnetic anisotropy of H₄CoN₄" in page.text
    assert "not shown" not in page.text and "Not available for this run" not in page.text


def test_no_text_is_cut_off(made):
    for figure in made[2]:
        figure.canvas.draw()
        renderer, canvas = figure.canvas.get_renderer(), figure.bbox
        for axes in figure.axes:
            if not axes.axison:  # the molecule
                continue
            assert axes.get_xlabel() and axes.get_ylabel()
            legend = axes.get_legend()
            texts = [
                axes.title,
                axes.xaxis.label,
                axes.yaxis.label,
                *axes.texts,
                *(legend.get_texts() if legend else []),
            ]
            for text in texts:
                box = text.get_window_extent(renderer)
                assert not text.get_text() or (box.x0 >= -1 and box.y0 >= -1), text
                assert not text.get_text() or (box.x1 <= canvas.x1 + 1 and box.y1 <= canvas.y1 + 1), text
            low, high = sorted(axes.get_xlim())
            ticks = [t.label1 for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
            boxes = [label.get_window_extent(renderer) for label in ticks if label.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes)), axes.get_xlabel()


def test_every_number_of_the_page_is_in_the_json(made):
    folder, (path, numbers), _ = made
    found, page = json.loads(numbers.read_text()), Page(path.read_text(encoding="utf-8"))
    assert found["analysis"] == json.loads((folder / "analysis.json").read_text())
    names = "anisotropy comparison elements structure modes harmonic deviations calibration training models run"
    assert [table["name"] for table in found["tables"]] == names.split()
    words = page.text.replace("\u00a0", " ")
    for table in found["tables"]:
        for head, cells in table["rows"]:
            assert " ".join(head.split()) in words
            assert all(cell["text"].replace("\u00a0", " ") in words for cell in cells)
    means = dict(found["tables"][0]["rows"])["⟨D⟩, mean of D over frames / cm⁻¹"]
    assert "R² = 1 − (RMSE / RMSE of the mean)²" in words and "D has the wrong sign in 1 of 5 structures" in words
    entries = [state["anisotropy"]["D"] for state in found["analysis"]["states"]]
    assert [cell["quantity"] for cell in means] == entries
    assert [cell["text"] for cell in means] == row_texts(entries)
    assert [(answer["level"], answer["words"] in words) for answer in found["trust"]] == [
        (line["level"], True) for line in sorted(found["analysis"]["trust"], key=lambda line: line["level"] == "green")
    ]
    assert len(found["figures"]) == 10 and all(figure["caption"] for figure in found["figures"])
    assert sum(len(figure["panels"]) for figure in found["figures"]) == len(page.images)


def test_no_path_names_a_folder_of_the_machine(made):
    folder, paths, _ = made
    for path in (folder / "analysis.json", *paths):
        assert str(folder.parent) not in path.read_text(encoding="utf-8")
    content = json.loads((folder / "analysis.json").read_text())
    assert (
        content["models"]["d_tensor"]["file"] == content["run"]["config"]["d_tensor"]["model"] == "../d_model/model.h5"
    )
    assert content["training"]["d_tensor"]["folder"] == "../d_model"
    assert "../potential.h5" in Page(paths[0].read_text(encoding="utf-8")).text


def test_the_reference_is_compared_with_the_run(made):
    found = json.loads(made[1][1].read_text())
    table = found["tables"][1]
    assert table["columns"] == ["", "this run", "Somebody 2020"] and table["note"] == "At another level of theory."
    rows = {head: [cell["text"] for cell in cells] for head, cells in table["rows"]}
    assert rows["⟨D⟩, 50 K / cm⁻¹"][1] == "−100.5"
    assert rows["⟨E⟩, 25 K / cm⁻¹"] == ["–", "1.00"]  # 30 GHz; the run has no 25 K
    assert rows["committee deviation of D, 100 K / cm⁻¹"][1] == "0.11 to 0.20"
    assert rows["committee deviation of forces, 50 K / (eV/Å)"][1] == "0.004"
    assert rows["RMSE of the elements of D / cm⁻¹"] == ["0.600", "0.58"]
    assert rows["mean metal–ligand distance, 50 K / Å"][0].startswith("2.0")
    assert "[" in rows["r of D with q, 100 K"][0]


def test_a_run_that_has_little_to_show(tmp_path):
    synthetic_run(tmp_path, (50.0,), seeds_each=1, n_samples=150, with_tensors=False)
    analyze(tmp_path, Analysis(modes=False))
    page = Page(write_report(tmp_path)[0].read_text(encoding="utf-8"))
    assert page.text.count("not shown.") == 5
    assert (
        "Distributions of D, E and the elements of the tensor: not shown. D was not computed along this run"
        in page.text
    )
    assert "Not available for this run" in page.text and "Molecular dynamics of H₄CoN₄" in page.text
    assert "Geometry and its correlation" not in page.text and "1 replica at 50 K, 0.596 ps." in page.text
    assert "(a) Velocities" not in page.text and "Velocities, each component" in page.text  # one panel has no letter
    assert len(page.images) == 2  # autocorrelation of velocities, deviation of forces
    result = CliRunner().invoke(
        gmcore.commands.app.app, ["report", str(tmp_path), "-o", str(tmp_path / "out" / "page.html")]
    )
    assert result.exit_code == 0 and "page.json" in result.stdout
    assert (tmp_path / "out" / "page.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_many_temperatures_and_a_picture_where_data_are_gone(made, tmp_path):
    folder = made[0]
    content = json.loads((folder / "analysis.json").read_text())
    state = content["states"][0] | {"structure": {"measures": [], "points": {}}, "spectra": {}, "modes": {}}
    content["states"] = [state | {"label": f"{k} K"} for k in range(6)]
    content["training"]["d_tensor"]["parity"] = None
    content["training"]["d_tensor"]["missing"]["parity"] = f"The data cannot be read: no file {tmp_path / 'data.h5'}"
    picture = tmp_path / "parity.png"
    figure = Figure()
    figure.savefig(picture)
    content["training"]["d_tensor"]["parity_picture"] = str(picture)  # absolute, as older versions wrote it
    (tmp_path / "analysis.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path)[0].read_text(encoding="utf-8"))
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()
    assert "0 K, 1 K, 2 K, 3 K, 4 K and 5 K" in page.text
    assert sum(source.startswith("data:image/png") for source, _ in page.images) == 1
    assert "This is the figure that the training saved. The data cannot be read: no file data.h5." in page.text


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics.json", "{", "metrics.json cannot be read: .*; train or evaluate the model again"),
        ("metrics.json", "[]", "metrics.json does not hold what it should: its content: "),
        ("metrics.json", '{"test": {"d_tensor": 1}}', "metrics.json .* test.d_tensor: .*, got 1;"),
        ("metrics.json", '{"test": {"d_tensor": {"mae": "a"}}}', "metrics.json .* test.d_tensor.mae: .*, got 'a'"),
        ("learning_curve/learning_curve.json", '{"d_tensor": {}}', "d_tensor.sizes: .*; compute the learning curve"),
        ("learning_curve/learning_curve.json", '{"d_tensor": {"sizes": [1e999]}}', "d_tensor.sizes.0: .*, got inf"),
    ],
)
def test_damaged_results_of_a_training_are_refused(tmp_path, file, text, message):
    (tmp_path / "learning_curve").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / file).write_text(text)
    with pytest.raises(RecordError, match=message):
        training_results(tmp_path / "model.h5", None, "cm^-1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("run"),
        lambda content: content.update(states=3),
        lambda content: content["states"].append({}),
        lambda content: content["states"][0].update(label=None, target=[]),
        lambda content: content["run"].update(molecule=3.5),
        lambda content: content["run"].clear(),
        lambda content: content.update(unit="furlong"),
        lambda content: content["training"]["d_tensor"].update(metrics={"test": {"d_tensor": {"mae": "a"}}}),
        lambda content: content["training"].update(d_tensor={"learning_curve": {"sizes": 1}}),
    ],
)
def test_damaged_analyses_are_refused(made, tmp_path, damage):
    content = json.loads((made[0] / "analysis.json").read_text())
    del content["states"][1:]  # few figures, which take time
    content["states"][0] |= {key: {} for key in ("distributions", "structure", "along", "autocorrelations", "spectra")}
    content |= {"modes": None, "molecule": None}
    damage(content)
    (tmp_path / "analysis.json").write_text(json.dumps(content))
    with pytest.raises(
        RecordError, match=r"analysis.json does not hold what .*; write it again with: gmtensor analyze"
    ):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_no_analysis(tmp_path):
    with pytest.raises(RecordError, match="write it with: gmtensor analyze"):
        write_report(tmp_path)
    result = CliRunner().invoke(gmcore.commands.app.app, ["report", str(tmp_path)])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    result = CliRunner().invoke(gmcore.commands.app.app, ["analyze", str(tmp_path), "--unit", "eV"])
    assert result.exit_code == 2 and result.stderr.startswith("error: the options: unit")


def test_figures_in_files(made, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "figures"
    content = json.loads((made[0] / "analysis.json").read_text())
    for state in content["states"]:  # fewer figures, which take time
        state |= {key: {} for key in ("distributions", "autocorrelations", "spectra")}
    for place in (folder, out):
        place.mkdir()
    (folder / "analysis.json").write_text(json.dumps(content))
    (out / "temperature.csv").write_text("of an earlier report")
    result = CliRunner().invoke(gmcore.commands.app.app, ["report", str(folder), "--figures", str(out)])
    assert result.exit_code == 0, result.output
    drawn = json.loads((folder / "report.json").read_text())["figures"]
    names = [figure["name"] for figure in drawn if figure["panels"]]
    assert len(names) == 8 and "molecule" in names
    assert {path.name for path in out.iterdir()} == {
        f"{n}{suffix}" for n in names for suffix in (".pdf", ".svg", ".csv")
    }
    for name in names:
        svg, pdf = (out / f"{name}.svg").read_text(), (out / f"{name}.pdf").read_bytes()
        assert "<text" in svg and b"/FontFile2" in pdf and b"/Type3" not in pdf, name
        width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) / 72.0
        assert width in (3.25, 7.0)
    with open(out / "temperature.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    run = [row for row in rows if row["series"] == "run" and row["panel"] == "a"]
    entry = content["states"][1]["anisotropy"]["D"]
    assert [row["x"] for row in run] == ["50", "100"] and {row["y_label"] for row in run} == {"D / cm^-1"}
    assert float(run[1]["y"]) == pytest.approx(entry["value"]) and float(run[1]["high"]) > float(run[1]["low"])
    assert {row["series"] for row in rows} == {
        "run", "model error", "quantum harmonic modes", "classical harmonic modes", "Somebody 2020",
    }  # fmt: skip
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(OutputError, match="figures need a folder"):
        export([], taken, [])


@pytest.mark.parametrize("n", range(2, 7))
def test_states_are_told_apart_without_colors(n):
    from matplotlib.colors import to_rgb

    found = looks([{"label": str(k)} for k in range(n)])
    light = [np.dot(np.array(to_rgb(look.color)) ** 2.2, (0.2126, 0.7152, 0.0722)) for look in found]
    for (one, other), (dark, bright) in zip(pairwise(found), pairwise(light)):
        assert (one.dashes, one.marker) != (other.dashes, other.marker)
        assert (bright + 0.05) / (dark + 0.05) > (1.3 if n < 5 else 1.15)


def test_a_red_line_is_in_the_headline_and_both_parts_of_the_error_are_named(made, tmp_path):
    content = json.loads((made[0] / "analysis.json").read_text())
    for state in content["states"]:
        state["anisotropy"]["D"] |= {"error": 0.3, "model": 0.4, "total": 0.5}
    content["states"][1]["thermodynamics"]["temperature"]["value"] = 70.6
    factor = {"source": "last_layer", "factor": 2.6, "factor_error": 0.2, "n_structures": 50}
    content["calibration"] = {"d_tensor": {"D": factor | {"coverage_raw": [0.3, 0.6], "coverage": [0.69, 0.95]}}}
    content["trust"] = trust_lines(content)
    (tmp_path / "analysis.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path)[0].read_text(encoding="utf-8"))
    assert page.text.startswith("Not reliable: thermally averaged") and "70.6 K where 100 K" in page.text
    assert "before the following is settled: temperature." in page.text and "fails" in page.text
    lead = page.text.replace("\u00a0", " ")
    assert "± 0.50 cm⁻¹ at 50 K (sampling 0.30, model 0.40)" in lead and "sampling alone" not in lead
    assert "Calibration of the errors" in lead and "30, 60 % 69, 95 %" in lead


def test_numbers():
    assert [number(value, 3) for value in (1234567.0, 0.00001234, -0.5, 12.345, None, float("nan"))] == [
        "1.23·10⁶", "1.23·10⁻⁵", "−0.500", "12.3", "–", "–",
    ]  # fmt: skip
    assert with_error(10.0, 0.0996) == "10.00\u00a0±\u00a00.10"
    assert with_error(0.5, None) == with_error(0.5, 0.0) == "0.5000"
    assert with_error(1.0, 1e-9) == "1.000\u00a0±\u00a01.0·10⁻⁹"
    assert with_interval(-0.001, [-0.004, 0.004]) == "0.00 [0.00, 0.00]" and with_interval(None, None) == "–"
    assert fixed(-0.001, 1) == "0.0" and fixed(None, 1) == "–"
    assert with_unit("a", "eV/Å") == "a / (eV/Å)" and with_unit("a", "Å") == "a / Å" and with_unit("a", "") == "a"
    assert quantity_text(None) == "–" and quantity_text({"value": 2.0}, 2) == "2.0"
    assert as_given([-106]) == ["−106"] and as_given([-106.0]) == ["−106.0"] and as_given([0.0, 0.3]) == ["0.0", "0.3"]
    assert as_given([0.1, 0.15], 0.0434) == ["0.0043", "0.0065"] and as_given([5, 10], 0.0434) == ["0.22", "0.43"]
    assert as_given([-105.7], 29979.2458) == ["−3169000"] and as_given([0, 0], 2.0) == ["0", "0"]
    assert unit_text("cm^-1") == "cm⁻¹" and unit_text("MHz") == "MHz"
