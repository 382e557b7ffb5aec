"""The page: self-contained, escaped, well formed, and laid out in a real browser."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recbole_bbqrec import palette
from recbole_bbqrec.experiment.report_card.html import (
    model_card,
    pictures,
    render,
    seconds,
    share,
    span,
)

VOID = {"meta", "br", "path", "use", "rect"}
HOSTILE = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags, ids and references of a page; fails where elements are not properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID or tag in ("path", "use", "rect"):
            self.open.append(tag)
        if tag in ("meta", "br"):
            self.open = [t for t in self.open if t != tag]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def text(card) -> str:
    return render(card)


def test_nothing_comes_from_outside(text):
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    references = page.values("href") + page.values("xlink:href") + page.values("src")
    assert references and all(value.startswith("#") for value in references)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text and "://" not in text
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    policy = [v for tag, name, v in page.attributes if tag == "meta" and name == "content"]
    assert any(value.startswith("default-src 'none'") for value in policy)


def test_every_link_has_its_place(text):
    page = Page(text)
    ids = page.values("id")
    assert {value[1:] for value in page.values("href")} <= set(ids)
    sections = [v for tag, name, v in page.attributes if tag == "section" and name == "id"]
    skip, *contents = [value[1:] for value in page.values("href")]
    assert len(sections) == 14 and sections == contents and skip == sections[0]


def test_colours_are_the_pages(text):
    """No chart keeps a stand-in colour, so that all of them follow the dark scheme."""
    assert "var(--c0)" in text and "#0102" not in text and "#01030" not in text


def test_pictures_have_fixed_colours(card, tmp_path):
    drawn = pictures(card)
    assert {"tokenize-", "generate-", "codes-", "code-use-", "map-", "beam-", "popularity-"} <= {
        name[: len(part)] for name in drawn for part in
        ("tokenize-", "generate-", "codes-", "code-use-", "map-", "beam-", "popularity-")
    }  # fmt: skip
    chart = drawn["code-use-share-of-the-items-at-each-code"]
    chart.save(tmp_path / "made" / "use.svg")
    chart.save(tmp_path / "made" / "use.png")
    text = (tmp_path / "made" / "use.svg").read_text(encoding="utf-8")
    assert palette.BLUE in text and "#0102" not in text and "#01030" not in text
    assert "dc:date" not in text  # the same command gives the same bytes
    assert (tmp_path / "made" / "use.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_card_is_whole(card):
    report = copy.deepcopy(card)
    report["run"]["features"]["text"]["encoder"] = "a|b <i>"
    made = model_card(report)
    assert made.startswith("# BBQRec on Mini\n") and made.endswith("`config.yaml`.\n")
    assert "a\\|b &lt;i>" in made and report["run"]["split_hash"] in made
    for name, value in report["test"]["reported"].items():
        assert f"| {name} | {value:.4f} | " in made
    assert re.search(r"^\| same day \| [\d,]+ \| 0\.\d{4} \| 0\.\d{4} \|$", made, re.M)
    # A table's rows follow each other, and have as many cells as its header.
    for table in re.findall(r"(?:^\|.*\n)+", made, re.M):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(widths) == 1 and len(table.splitlines()) > 2, table


def test_the_page_is_small(text):
    assert len(text.encode()) < 2_000_000


def test_hostile_texts_are_escaped(card):
    report = copy.deepcopy(card)
    report["examples"][0]["next"]["title"] = HOSTILE
    report["examples"][0]["user"] = HOSTILE
    report["examples"][1]["recommended"][0]["title"] = HOSTILE
    report["run"]["dataset"] = HOSTILE
    report["run"]["features"]["text"]["encoder"] = HOSTILE
    report["run"]["configuration"] = HOSTILE
    for entry in report["codes"]["use"]:  # a modality's name, in a table and in a chart
        entry["signal"] = entry["signal"].replace("text", HOSTILE)
    report["codes"]["signals"] = [s.replace("text", HOSTILE) for s in report["codes"]["signals"]]
    report["curves"][0]["panels"][0]["name"] = HOSTILE
    report["curves"][0]["panels"][1]["series"] = {HOSTILE: [[0, 1.0]], "b": [[0, 2.0]]}
    text = render(report)
    assert "script" not in Page(text).tags
    assert "<script" not in text
    assert html.unescape(text).count(HOSTILE) >= 9
    assert "49" not in re.findall(r"took next</span> ([^<]*)", text)[0]


def test_sections_that_a_model_lacks_say_why(card, text):
    """The shortest page: no optional section, and the check of the metrics failed."""
    report = {**card, "test": {**card["test"], "agree": False}}
    optional = ("curves", "codes", "collisions", "map", "lenient", "similarity", "beam")
    report.update(dict.fromkeys(optional), left_out={key: f"no {key} <here>" for key in optional})
    short = render(report)
    # The map is a part of the codes' section.
    assert all(f"no {key} &lt;here&gt;" in short for key in optional if key != "map")
    assert "differ from" in short and "differ from" not in text
    Page(short)


def test_numbers_as_text():
    assert (share(0.1234), share(None), share(0.5, 0)) == ("12.3 %", "–", "50 %")
    assert [seconds(n) for n in (5.02, 229.4, 7300)] == ["5.0 s", "3 min 49 s", "2 h 1 min"]
    assert (span({"from": 5, "to": 5}), span({"from": 5, "to": 1200})) == ("5", "5–1,200")


# in a browser ---------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: Shows the report in frames of two widths and writes what it measures into the document. The
#: frames are srcdoc, so that this script may look into them; the report itself runs none.
MEASURE = """<!doctype html><body>{frames}<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const box = e => e.getBoundingClientRect();
    return {{
      width: frame.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
      charts: [...page.querySelectorAll("svg.chart")].map(e => [box(e).width, box(e).height]),
      texts: [...page.querySelectorAll("svg.chart text")].map(e => box(e).height),
      spilt: [...page.querySelectorAll(".tile, article, nav, .read")]
        .filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent),
      columns: getComputedStyle(page.body).display,
      opened: [...page.querySelectorAll("details")].map(e => e.open = true),
      unreachable: [...page.querySelectorAll("*")].filter(e => {{
        const scrolls = e.scrollWidth > e.clientWidth + 1 &&
          ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
        return scrolls && e.tabIndex < 0;
      }}).map(e => e.outerHTML.slice(0, 80)),
      focused: [...page.querySelectorAll("a, summary, [tabindex]")].map(e => {{
        e.focus();
        const style = getComputedStyle(e);
        return [page.activeElement === e, style.outlineStyle, parseFloat(style.outlineWidth)];
      }}),
      astray: [...page.querySelectorAll("a")].map(e => e.getAttribute("href"))
        .filter(to => !page.getElementById(to.slice(1))),
      scripts: page.scripts.length, font: getComputedStyle(page.body).fontFamily,
    }};
  }});
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""


def browser() -> str | None:
    """A Chromium or Chrome on this machine, or the one that CHROME names."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, BROWSERS)), None)


def measured(page: str, widths: list[int], tmp_path: Path) -> list[dict]:
    frames = "".join(
        f'<iframe width={width} height=900 style="border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
    )
    path = tmp_path / "frames.html"
    path.write_text(MEASURE.format(frames=frames), encoding="utf-8")
    command = [
        browser(), "--headless", "--disable-gpu", "--no-sandbox", "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome here; CHROME may name one")
def test_layout_in_a_browser(text, tmp_path):
    wide, narrow = measured(text, [1280, 400], tmp_path)
    n_charts = text.count('class="chart"')
    for page, width in ((wide, 1280), (narrow, 400)):
        assert page["width"] == width
        assert page["scroll"] <= width, "the page scrolls sideways"
        assert page["spilt"] == [] and page["scripts"] == 0
        assert len(page["charts"]) == n_charts > 20
        assert all(width / 5 < w <= width and h > 100 for w, h in page["charts"])
        assert min(page["texts"]) >= 8, "text of a chart is too small to read (pixels)"
        # By keyboard: whatever scrolls or leads on takes the focus and shows it.
        assert page["unreachable"] == [] and page["astray"] == []
        assert len(page["focused"]) > 20
        assert all(taken and style == "solid" and px >= 2 for taken, style, px in page["focused"])
    assert wide["columns"] == "grid" and narrow["columns"] == "block"
    assert narrow["height"] > 1.5 * wide["height"]  # one column instead of several
