"""A browser draws the page: nothing wider than its window, nothing cut off, nothing on top of else.

The page is put into frames of 400 and 1400 pixels on a page that measures it and writes down what
it found. The copy that is measured has no rule against scripts; the page itself needs none.
"""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.report.html import render_html

Example = Callable[..., dict[str, Any]]
Plant = Callable[..., Path]
CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
WIDTHS = (400, 1400)
MEASURE = """
function boxes(svg) {
  return [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
}
function overlap(a, b) {
  const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return w > 1.5 && h > 0.35 * Math.min(a.height, b.height);
}
window.onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll('iframe')) {
    const doc = frame.contentDocument, root = doc.documentElement;
    const cut = [], over = [], small = [], out = [];
    for (const e of doc.querySelectorAll('main *, header *')) {
      const box = e.getBoundingClientRect();
      const inside = e.closest('.scroll, .tabbed, svg, details:not([open])');
      if (!inside && box.width && box.right > root.clientWidth + 1) out.push(e.tagName);
    }
    for (const d of doc.querySelectorAll('details')) d.open = true;
    const tall = [...doc.querySelectorAll('td')].filter(
      td => td.textContent.length < 80 && td.getBoundingClientRect().height > 150
    ).map(td => td.textContent);
    for (const svg of doc.querySelectorAll('svg')) {
      const own = svg.getBoundingClientRect(), texts = boxes(svg);
      const name = svg.querySelector('title').textContent;
      for (const [words, b] of texts) {
        if (b.left < own.left - 1 || b.right > own.right + 1 || b.top < own.top - 1
            || b.bottom > own.bottom + 1) cut.push(name + ': ' + words);
        if (b.height < 11) small.push(name + ': ' + words + ' ' + b.height);
      }
      texts.forEach(([w1, b1], i) => texts.slice(i + 1).forEach(([w2, b2]) => {
        if (overlap(b1, b2)) over.push(name + ': ' + w1 + ' / ' + w2);
      }));
    }
    found[frame.width] = {scroll: root.scrollWidth, client: root.clientWidth, cut, over, small, out,
      tall,      charts: doc.querySelectorAll('svg').length,
      ground: frame.contentWindow.getComputedStyle(doc.body).backgroundColor};
  }
  document.body.innerHTML = '';
  const pre = document.createElement('pre');
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
};
"""


def run_browser(tmp_path: Path, *words: str) -> str:
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}",
            *words,
        ],
        check=True,
        capture_output=True,
        timeout=120,
        text=True,
    )
    return done.stdout


def measured(page: str, tmp_path: Path, *words: str) -> dict[int, dict[str, Any]]:
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    source = base64.b64encode(free.encode()).decode()
    frames = "".join(f'<iframe width="{w}" height="900"></iframe>' for w in WIDTHS)
    load = (
        f"const bytes = Uint8Array.from(atob('{source}'), c => c.charCodeAt(0));"
        "const page = new TextDecoder().decode(bytes);"
        "for (const frame of document.querySelectorAll('iframe')) frame.srcdoc = page;"
    )
    tmp_path.mkdir(exist_ok=True)
    wrapper = tmp_path / "measure.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>{frames}<script>{load}{MEASURE}</script>',
        encoding="utf-8",
    )
    dumped = run_browser(
        tmp_path, *words, "--virtual-time-budget=8000", "--dump-dom", wrapper.as_uri()
    )
    found = re.search(r"<pre>(.*?)</pre>", dumped, re.DOTALL)
    assert found is not None, dumped[-2000:]
    return {int(width): facts for width, facts in json.loads(unescape(found[1])).items()}


def check_layout(found: dict[int, dict[str, Any]], num_charts: int) -> None:
    assert set(found) == set(WIDTHS)
    for width, facts in found.items():
        assert facts["charts"] >= num_charts, width
        assert facts["scroll"] <= facts["client"], (width, facts["scroll"], facts["client"])
        assert not facts["out"], (width, facts["out"])
        assert not facts["cut"], (width, facts["cut"])
        assert not facts["over"], (width, facts["over"])
        assert not facts["small"], (width, facts["small"])
        assert not facts["tall"], (width, facts["tall"])


def test_a_whole_report_fits_a_telephone_and_a_wide_screen(
    example: Example, tmp_path: Path
) -> None:
    check_layout(measured(render_html(example()), tmp_path), 20)


def test_a_report_with_long_names_and_many_classes_fits(example: Example, tmp_path: Path) -> None:
    report = example(12)
    rows = report["metrics"]["bias"]["per_class"]
    rows += [{**rows[0], "class": f"a class with a long name, number {i}"} for i in range(60)]
    answers = report["metrics"]["answers"]
    answers["a_modality_with_a_very_long_name_of_forty_two"] = answers["audio"]
    report["run"] = "a-run-with-a-name-that-has-no-place-to-break-it" * 4
    report["metrics"]["verdict"]["sentence"] = "word" * 60
    check_layout(measured(render_html(report), tmp_path), 20)


def test_a_comparison_fits(plant: Plant, tmp_path: Path) -> None:
    paths = [plant(f"none{i}", seed=i, acc=0.7 + i / 100) for i in range(2)]
    paths += [plant(f"ogm{i}", method="ogm", seed=i, acc=0.8 + i / 100) for i in range(2)]
    check_layout(measured(render_html(diagnose(paths).as_dict()), tmp_path), 5)


def test_the_page_follows_the_colour_scheme_of_the_reader(example: Example, tmp_path: Path) -> None:
    page = render_html(example(3))
    light = measured(page, tmp_path / "light", "--blink-settings=preferredColorScheme=1")
    dark = measured(page, tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert light[1400]["ground"] == "rgb(255, 255, 255)"
    assert dark[1400]["ground"] == "rgb(18, 22, 27)"


def test_the_page_is_printed_on_white_paper(example: Example, tmp_path: Path) -> None:
    page, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(render_html(example()), encoding="utf-8")
    run_browser(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12


def test_six_modalities_fit(plant: Plant, tmp_path: Path) -> None:
    kinds = ("dominant", "balanced", "balanced", "poor", "ignored", "ignored")
    modalities = {f"view_{i}_of_six": kind for i, kind in enumerate(kinds)}
    report = diagnose([plant(modalities=modalities, epochs=8)]).as_dict()
    check_layout(measured(render_html(report), tmp_path), 6)
