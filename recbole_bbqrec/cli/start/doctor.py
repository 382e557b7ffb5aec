"""``python -m recbole_bbqrec doctor``: what this machine has, and what is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import add_data_path, describe
from recbole_bbqrec.cli.grammar import CommandParser


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``doctor``."""
    purpose = "Show versions, devices, data sets and extras, and how to get what is missing."
    describe(parser, purpose, "--data_path=dataset")
    add_data_path(parser.group("data"))


def main(args: argparse.Namespace) -> int:
    """Print the findings, and what to do about those that lack something."""
    from recbole_bbqrec.onboarding.environment import examine

    sections = examine(Path(args.data_path))
    rows = [row for section in sections.values() for row in section]
    width = max(len(row.name) for row in rows)
    for title, section in sections.items():
        print(title)
        for row in section:
            print(f"  {row.name:<{width}}  {row.value}")
            if row.remedy:
                print(f"  {'':<{width}}  -> {row.remedy}")
    return 0
