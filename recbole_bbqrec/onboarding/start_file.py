"""A YAML file of options to start from: every option of a model, commented out, with its help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.config import options_read
from recbole_bbqrec.config.options import SETTINGS_BY_TOPIC
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import overlay_files, recbole_model_file
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import property_bases, spec
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
    written: set[str] = set()
    read = options_read(model, dataset)
    for topic, kinds in SETTINGS_BY_TOPIC.items():
        known = {each.name: each for kind in kinds for each in options_of(kind).values()}
        known = {name: each for name, each in known.items() if name in read and name not in written}
        known = {name: each for name, each in known.items() if name in defaults or topic == _RUN}
        if known:
            lines += ["", f"# {topic}"]
            lines += [line for each in known.values() for line in _lines(each.name, each, defaults)]
            written |= set(known)
    others = [name for name in defaults if name not in written]
    if others:
        lines += ["", "# RecBole's, and those without a check"]
        lines += [line for name in others for line in _lines(name, None, defaults)]
    return "\n".join(lines) + "\n"


_RUN = next(iter(SETTINGS_BY_TOPIC))  # these options have defaults without a YAML file


def default_options(model: str, dataset: str) -> dict[str, Any]:
    """Return what the YAML files of the model and of the data set say, the last one winning."""
    theirs = recbole_model_file(model)
    files = [*([theirs] if theirs else []), *overlay_files(model, dataset, *property_bases(model))]
    options: dict[str, Any] = {}
    for path in files:
        options.update(read_yaml(path))
    return options


def _lines(name: str, known: Option | None, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Yield the line of an option; its help goes above it where there is no room beside."""
    value = defaults.get(name, known.default if known else None)
    value = list(value) if isinstance(value, tuple) else value
    plain = yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()
    line = f"#{name}: {plain}" if value is not None else f"#{name}:"
    if known is None:
        yield line
        return
    text = f"  # ({known.check.short}) {known.help}"
    beside = line.ljust(_HELP_COLUMN) + text
    if len(beside) <= _WIDEST:
        yield beside
    else:
        yield text
        yield line
