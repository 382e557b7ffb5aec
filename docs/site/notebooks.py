"""Pages of the notebooks, from their sources in jupytext's percent format."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def page(source: str, name: str) -> str:
    """Return a page: Markdown cells as text, code cells as code.

    >>> print(page("# %% [markdown]\\n# # Title\\n# %%\\nx = 1\\n", "x").split("!!!")[0].strip())
    # Title
    """
    parts: list[str] = []
    cells = _CELL.split(source)[1:]
    for kind, text in zip(cells[::2], cells[1::2]):
        if "[markdown]" in kind:
            lines = [re.sub(r"^# ?", "", line) for line in text.strip("\n").split("\n")]
            # Links are written for docs/, where the page's sources are read beside the others.
            parts.append(re.sub(r"\]\((?!\w+:)([^)]+)\)", r"](../\1)", "\n".join(lines).strip()))
        elif text.strip():
            code = re.sub(r"  # (?:noqa|fmt)[^\n]*", "", text.strip())
            parts.append(f"```python\n{code}\n```")
        if len(parts) == 1:
            parts.append(
                f"!!! note\n    The source is `docs/notebooks/{name}.py`; `jupytext --to notebook` "
                "makes a notebook of it. The project's tests run it."
            )
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """Return the text of every notebook's page by its name in docs/."""
    return {
        f"notebooks/{path.stem}.md": page(path.read_text(encoding="utf-8"), path.stem)
        for path in sorted(FOLDER.glob("*.py"))
    }
