"""Reference pages of the site, as Markdown, from the parsers, the typed settings and the models."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterable, Sequence

from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.cli.main import VERBS, parser_of
from recbole_bbqrec.cli.models import model_rows
from recbole_bbqrec.config.options import SETTINGS_BY_TOPIC
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.model.registry import property_bases
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.settings import options_of


def options() -> str:
    """Return the page of all options, a table for each settings class."""
    lines = [
        "# Options", "",
        "Any of these is given as `--key=value`, or in a YAML file with `--config_files`. This "
        "page is generated from the classes that check the values. A default below is that of the "
        "class; the YAML file of a model ([Models](models.md)) or of a data set may set another. "
        "An option stands in several tables if several models read it. RecBole's own options are "
        "in [RecBole's documentation](https://recbole.io/docs/).", "",
    ]  # fmt: skip
    for heading, kinds in SETTINGS_BY_TOPIC.items():
        lines += [f"## {heading}", ""]
        for kind in kinds:
            found = options_of(kind).values()
            rows = [
                (f"`{each.name}`", each.check.short, f"`{_plain(each.default)}`", each.help)
                for each in found
            ]
            lines += [f"### {kind.__name__}", "", _summary(kind), ""]
            lines += [*_table(("option", "values", "default", "meaning"), rows), ""]
    return "\n".join(lines)


def commands() -> str:
    """Return the page of all verbs, a table for each group of arguments."""
    lines = [
        "# Commands", "",
        "`python -m recbole_bbqrec VERB`, or `recbole-bbqrec VERB`. Arguments are written "
        "`--name=value`, and lists `--models=A,B`. This page is generated from the parsers: "
        "`VERB --help` prints the same.", "",
    ]  # fmt: skip
    for name in VERBS:
        parser = parser_of(name)
        lines += [f"## {name}", "", " ".join((parser.description or "").split()), ""]
        for group in parser._action_groups:
            actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
            if not actions and not group.description:
                continue
            lines += [f"### {name}: {group.title}", "", *_prose(group.description)]
            rows = [(_written(action), _help(parser, action)) for action in actions]
            lines += [*(_table(("argument", "meaning"), rows) if rows else []), ""]
        lines += _prose(parser.epilog)
    return "\n".join(lines)


def models() -> str:
    """Return the page of all models, and the defaults of ours."""
    rows = [(f"`{r.name}`", r.kind, r.signals, r.reference) for r in model_rows()]
    lines = [
        "# Models", "",
        "As `python -m recbole_bbqrec models` lists them. A model in RecBole's rows is RecBole's "
        "own code with the same data, split and evaluator.", "",
        *_table(("model", "kind", "signals", "reference"), rows), "",
        "## Defaults", "", "The YAML file of each model, where it has one of its own. A variant "
        "starts from the files of its base.", "",
    ]  # fmt: skip
    for name in MODELS:
        path = properties_directory() / "model" / f"{name}.yaml"
        if path.is_file():
            lines += [f"### {name}", ""]
            bases = ", ".join(f"[{base}](#{base.lower()})" for base in property_bases(name)[0])
            lines += [f"Starts from {bases}.", ""] if bases else []
            lines += ["```yaml", path.read_text(encoding="utf-8").rstrip(), "```", ""]
    return "\n".join(lines)


def _written(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    name = action.option_strings[0]
    if action.choices:
        return f"`{name}=`" + " \\| ".join(f"`{c}`" for c in action.choices)
    return f"`{name}={action.metavar}`" if action.metavar else f"`{name}`"


def _help(parser: CommandParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    return " ".join(formatter._expand_help(action).split()) if action.help else ""


def _prose(text: str | None) -> list[str]:
    """Return paragraphs as they are, and indented ones as code."""
    lines: list[str] = []
    for part in (text or "").strip("\n").split("\n\n"):
        if part.startswith(" "):
            code = inspect.cleandoc("\n" + part)
            lines += ["```text", code, "```", ""]
        elif part:
            lines += [" ".join(part.split()), ""]
    return lines


def _summary(kind: type) -> str:
    return " ".join(inspect.getdoc(kind).split("\n\n")[0].split()) if kind.__doc__ else ""


def _plain(value: object) -> str:
    return "" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[text.replace("|", "\\|").replace("\\\\|", "\\|") for text in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return ["| " + " | ".join("" if t == "``" else t for t in row) + " |" for row in lines]
