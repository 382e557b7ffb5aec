"""Hooks of the documentation site: pages that are generated, so that they cannot drift.

MkDocs calls :func:`on_files` before it reads the pages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import notebooks  # noqa: E402
import reference  # noqa: E402

#: Page to the file outside docs/ that it shows.
SHOWN = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}


def pages() -> dict[str, str]:
    """Return the text of every page that is not a file in docs/, by its name there."""
    shown = {name: (ROOT / path).read_text(encoding="utf-8") for name, path in SHOWN.items()}
    return {
        **{name: text.replace("](docs/", "](") for name, text in shown.items()},
        "reference/commands.md": reference.commands(),
        "reference/options.md": reference.options(),
        "reference/models.md": reference.models(),
        **notebooks.pages(),
    }


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the files of the site."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files
