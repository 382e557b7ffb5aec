"""Arguments and exit codes that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError

FAILED, USER_ERROR, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141  # exit codes


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what commands on the run store share: where it is, and the options of its runs."""
    parser.add_argument(
        "--config_files", nargs="+", default=[], metavar="FILE", help="YAML files, later wins"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the YAML files, for all models that read them or, as MODEL.KEY=VALUE, "
        "for one",
    )
    parser.add_argument("--runs", default="runs", metavar="DIR", help="run store (default: runs)")
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="accept stored runs that another version of the code made",
    )


def parse_settings(
    settings: Sequence[str], models: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """``KEY=VALUE`` and ``MODEL.KEY=VALUE`` as options of all models and of each.

    Raises:
        UserError: another form, or a model that is not among ``models``.
    """
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        model, dot, key = name.rpartition(".")
        if not equals or not key:
            raise UserError(f"Option `--set` holds `{setting}`; expected KEY=VALUE, no spaces.")
        if dot and model not in models:
            raise UserError(
                f"Option `--set` holds `{setting}`; `{model}` is not among the models of this "
                f"command: {', '.join(models)}."
            )
        (own.setdefault(model, {}) if dot else common)[key] = parse_value(text)
    return common, own
