"""A YAML file of options to start from: every option of a model, commented out, with its help."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.config import default_options, options_read
from recbole_bbqrec.config.options import SETTINGS_BY_TOPIC
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.settings import Option, options_of

_HELP_COLUMN = 38
_WIDEST = 100  # columns of a line


def write_start_file(path: Path, model: str, dataset: str) -> None:
    """Write the options of ``model`` on ``dataset``, with their defaults, to ``path``.

    Raises:
        UserError: the file exists, or the model is unknown.
    """
    text = start_file(model, dataset, path)
    if path.exists():
        raise UserError(f"{path} exists, and is kept; give another NAME.")
    write_text(path, text)


def start_file(model: str, dataset: str, path: Path = Path("mine.yaml")) -> str:
    """Return the text of the file."""
    model = spec(model).name
    defaults = default_options(model, dataset)
    command = f"run --model={model} --dataset={dataset} --config_files={path}"
    lines = [
        f"# Options of {model} on {dataset}, with their defaults. Remove the # of a line to change",
        "# its option, then run",
        "#",
        f"#   python -m recbole_bbqrec {command}",
        "#",
        "# An option on the command line wins over this file.",
    ]
    left = [name for name in defaults if name in options_read(model, dataset)]
    for topic, kinds in SETTINGS_BY_TOPIC.items():
        known: dict[str, Option] = {}
        for each in (each for kind in kinds for each in options_of(kind).values()):
            if each.name in left:
                known.setdefault(each.name, each)
        if known:
            lines += ["", f"# {topic}"]
            lines += [line for name, each in known.items() for line in _lines(name, each, defaults)]
            left = [name for name in left if name not in known]
    if left:
        lines += ["", "# RecBole's, and those without a check"]
        lines += [line for name in left for line in _lines(name, None, defaults)]
    return "\n".join(lines) + "\n"


def _lines(name: str, known: Option | None, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Yield the line of an option; its help goes above it where there is no room beside."""
    value = defaults[name]
    plain = yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()
    line = f"#{name}: {plain}" if value is not None else f"#{name}:"
    if known is None:
        yield line
        return
    text = f"# ({known.check.short}) {known.help}"
    beside = f"{line:<{_HELP_COLUMN}}  {text}"
    if len(beside) <= _WIDEST:
        yield beside
    else:
        yield from textwrap.wrap(text, _WIDEST, subsequent_indent="# ")
        yield line
