"""The page in a real browser: no error, nothing wider than a phone, every figure there, the molecule in 3D."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow
WIDTHS = (390, 1400)

WRAPPER = """<!DOCTYPE html><body><pre id="result"></pre>{frames}<script>
addEventListener("load", () => setTimeout(() => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.getElementById("result").textContent = JSON.stringify(frames.map((frame) => {{
    const page = frame.contentDocument, width = frame.clientWidth;
    const visible = (node) => node.getClientRects().length > 0;
    const inScroll = (node) => node.closest(".scroll") !== null;
    const select = page.querySelector("select");
    if (select && visible(select)) {{ select.value = "0"; select.dispatchEvent(new Event("change")); }}
    const table = [...page.querySelectorAll(".scroll")].find((node) => node.scrollWidth > node.clientWidth);
    if (table) table.scrollLeft = 60;
    const first = table && table.querySelector("tbody th");
    return {{
      width: page.documentElement.scrollWidth,
      wide: [...page.body.querySelectorAll("*")].filter((node) => visible(node) && !inScroll(node)
        && node.getBoundingClientRect().right > width + 1).map((node) => node.outerHTML.slice(0, 80)),
      figures: [...page.querySelectorAll("figure")].map((node) => node.id),
      broken: [...page.images].filter((image) => !image.naturalWidth).length,
      hidden: [...page.images].filter((image) => !visible(image)).map((image) => image.closest("figure").id),
      drawn: page.querySelectorAll(".viewer canvas").length,
      modes: select ? select.options.length : 0,
      stuck: first ? first.getBoundingClientRect().left - table.getBoundingClientRect().left : null,
    }};
  }}));
}}, 1000));
</script></body>"""


@pytest.fixture(scope="module")
def seen(made, tmp_path_factory):
    """Return what a browser shows of the page at both widths, and what it wrote to its console."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs chromium or chrome")
    folder = tmp_path_factory.mktemp("browser")
    page = html.escape(made[1][0].read_text(encoding="utf-8"), quote=True)
    frames = "".join(f'<iframe style="width:{w}px;height:900px;border:0" srcdoc="{page}"></iframe>' for w in WIDTHS)
    (folder / "wrapper.html").write_text(WRAPPER.format(frames=frames), encoding="utf-8")
    options = (
        "--headless --no-sandbox --enable-logging=stderr --virtual-time-budget=8000 --window-size=1500,1900 "
        "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --dump-dom"
    )
    command = [browser, *options.split(), f"--user-data-dir={folder / 'profile'}", str(folder / "wrapper.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    text = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, flags=re.S)
    assert text and text[1], done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line and "GL Driver Message" not in line]
    return dict(zip(WIDTHS, json.loads(html.unescape(text[1])))), console


def test_the_console_is_empty(seen):
    assert seen[1] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_every_figure_is_shown(seen, made, width):
    found = seen[0][width]
    figures = json.loads(made[1][1].read_text())["figures"]
    assert found["width"] <= width and found["wide"] == []
    assert found["figures"] == [f"figure-{figure['name']}" for figure in figures]
    assert found["broken"] == 0
    # the viewer replaces the static picture of the molecule, or the picture stays
    assert found["hidden"] == (["figure-molecule"] if found["drawn"] else [])
    assert found["modes"] == 7  # none, and the six modes of the run
    if width < 500:
        assert abs(found["stuck"]) <= 1  # the first column stays when a table is scrolled
