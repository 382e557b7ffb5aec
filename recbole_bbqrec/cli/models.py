"""``python -m recbole_bbqrec models``: every model that ``--model`` accepts."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, NamedTuple

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import overlay_files
from recbole_bbqrec.model.registry import MODELS, get_model, model_names, property_bases

#: Single-phase models that know an item by its features alone.
_WITHOUT_ID = {"VQRec", "RPG"}


class ModelRow(NamedTuple):
    """One line of the list."""

    name: str
    kind: str  # generative, single-phase (ours), or RecBole (its own)
    signals: str  # inputs that describe an item, with the default options
    reference: str  # authors and year


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``models``."""
    purpose = "List the models that --model accepts, with their signals and papers."
    describe(parser, purpose, "--ours")
    parser.group("output")("--ours", None, "leave out RecBole's own sequential models")


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = model_rows(ours_only=args.ours)
    header = ModelRow("model", "kind", "signals", "reference")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    return 0


def model_rows(ours_only: bool = False) -> list[ModelRow]:
    """Return our models in the order of the registry, then RecBole's by name."""
    rows = [_our_row(name) for name in MODELS]
    if not ours_only:
        rows += [
            ModelRow(name, "RecBole", "see RecBole", _recbole_reference(name))
            for name in model_names()
            if name not in MODELS
        ]
    return rows


def _our_row(name: str) -> ModelRow:
    model: Any = get_model(name)
    options: dict[str, Any] = {}
    for path in overlay_files(name, "", *property_bases(model)):
        options.update(read_yaml(path))
    if getattr(model, "two_phase", False):
        signals = " ".join(model.signals_of(options))
        return ModelRow(name, "generative", signals, _reference(model))
    own = () if name in _WITHOUT_ID else ("id",)
    signals = " ".join([*own, *(options.get("modalities") or ())])
    return ModelRow(name, "single-phase", signals, _reference(model))


def _reference(model: Any) -> str:
    """Return authors and year from the "Reference:" in the docstring of the class or a base."""
    for source in model.__mro__:
        match = re.search(r"References?: ([^,]+),.*?(\d{4})", source.__doc__ or "", flags=re.DOTALL)
        if match:
            return " ".join(f"{match[1]} {match[2]}".split())
    return ""


def _recbole_reference(name: str) -> str:
    """Return authors and years from the "Reference:" of the module of one of RecBole's models."""
    text = sys.modules[get_model(name).__module__].__doc__ or ""
    listed = re.search(r"Reference:\s*(.*?)(?:\n\s*\n|Reference|$)", text, flags=re.DOTALL)
    papers = re.findall(r'([^"]+?)[\s,]*"[^"]*"[^"]*?(\d{4})\.?', listed[1] if listed else "")
    return "; ".join(" ".join(f"{authors} {year}".split()) for authors, year in papers)
