"""Links of the documentation lead somewhere, and its drawings are those of the script."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.support.runs import ROOT

DOCS = ROOT / "docs"
#: Pages that `mkdocs build` makes, and checks itself (docs/site/hooks.py).
GENERATED = {
    DOCS / "benchmarks.md", DOCS / "changelog.md", DOCS / "contributing.md",
    *(DOCS / f"notebooks/{path.stem}.md" for path in (DOCS / "notebooks").glob("*.py")),
    DOCS / "reference/commands.md", DOCS / "reference/options.md", DOCS / "reference/models.md",
}  # fmt: skip
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / n for n in ("README.md", "CONTRIBUTING.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown renderers make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


def targets(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    found = [first or second for first, second in LINK.findall(text)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for link in targets(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if page.is_relative_to(DOCS):  # the site has the pages of docs/ alone
            assert target.is_relative_to(DOCS), f"{link} leads out of docs/"
        if target in GENERATED or "reference" in target.parts:
            continue
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_no_merge_was_left_open(page):
    assert not re.search(r"^(<{7}|={7}$|>{7})", page.read_text(encoding="utf-8"), re.M)


def test_the_documentation_has_links():
    assert sum(len(targets(page)) for page in PAGES) > 50


def test_the_navigation_names_pages_that_exist():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [DOCS / name for name in re.findall(r"([\w/]+\.md)$", text, re.M)]
    assert len(pages) > 25
    assert not [page for page in pages if page not in GENERATED and not page.is_file()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_drawings_are_those_of_the_script(theme):
    script = runpy.run_path(str(DOCS / "site/two_phases.py"))
    drawn = script["draw"](script["THEMES"][theme])
    assert drawn == (DOCS / f"two_phases.{theme}.svg").read_text(encoding="utf-8")
