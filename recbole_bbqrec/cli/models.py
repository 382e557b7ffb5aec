"""``python -m recbole_bbqrec models``: every model that ``--model`` accepts."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import overlay_files
from recbole_bbqrec.model.registry import property_bases, spec
from recbole_bbqrec.model.specs import MODELS, ModelSpec, model_names


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
    rows = [_our_row(model) for model in MODELS.values()]
    if not ours_only:
        others = [name for name in model_names() if name not in MODELS]
        rows += [ModelRow(name, "RecBole", "see RecBole", spec(name).reference) for name in others]
    return rows


def _our_row(model: ModelSpec) -> ModelRow:
    options: dict[str, Any] = {}
    for path in overlay_files(model.name, "", *property_bases(model.name)):
        options.update(read_yaml(path))
    if model.two_phase:
        generative: Any = model.load()
        signals = generative.signals_of(options)
        return ModelRow(model.name, "generative", " ".join(signals), model.reference)
    signals = [*(["id"] if model.uses_id else []), *(options.get("modalities") or ())]
    return ModelRow(model.name, "single-phase", " ".join(signals), model.reference)
