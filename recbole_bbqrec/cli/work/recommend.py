"""``python -m recbole_bbqrec recommend``: the best items for many users, in a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser

DESCRIPTION = """\
Recommend the next items to all users of a finished run, to the users in a file, or after the
histories in a file, with any model. The data set is not needed: a run has its own copy."""

NOTES = """\
Filters act inside the search, so that --topk items come back where as many are allowed. After an
interruption the same command goes on with the users that are left."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``recommend``."""
    describe(parser, DESCRIPTION, "saved/BBQRec-Nov-27-2026_10-00-00 --output=recs.parquet", NOTES)
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>, or the .pth file beside it", type=Path)
    add("--data_path", "DIR", "folder that holds the data sets (default: the run's own copy)")
    add = parser.group("to whom")
    add("--users", "FILE", "a user a line (.txt), or a table with a column of users (default: all "
        "users of the data set)", type=Path)  # fmt: skip
    add("--histories", "FILE", 'lines {"user": ..., "history": [items, oldest first]} (.jsonl), or '
        "a table with a row an event: user, item, optionally time (default: none)",
        type=Path)  # fmt: skip
    add = parser.group("which items")
    add("--topk", "K", "items for each user", type=int, default=20)
    add("--exclude_seen", None, "leave out the items that the user has an event with (also those "
        "below the core, if `prepare` had --keep_all_items), or that are in the history "
        "given")  # fmt: skip
    add("--allow", "FILE", "recommend only these items, one a line (default: all)", type=Path)
    add("--deny", "FILE", "recommend none of these items, one a line (default: none)", type=Path)
    add("--where", "CONDITION", 'condition on a column of the items, such as "price < 20", "brand '
        'in acme, ajax" or "title contains tent"; may be repeated (default: none)',
        action="append", default=[])  # fmt: skip
    add("--items", "FILE", "table with the columns of --where (default: the run's own, of "
        "`prepare --items` or NAME.item)", type=Path)  # fmt: skip
    add("--fallback", "popular", "list the items with the most events, without scores, for unknown "
        "users and after histories without a known item (default: leave them out)",
        choices=["popular"])  # fmt: skip
    add("--strict", None, "refuse unknown users and items instead of leaving them out")
    add = parser.group("output")
    parser.renamed["--out"] = "--output"
    add("--output", "FILE", "file to write: .parquet, .csv or .jsonl", type=Path, required=True)
    add("--explain", None, "add a column with the nearest items of the history and what they share")


def main(args: argparse.Namespace) -> int:
    """Write the recommendations and print what was left out.

    Raises:
        UserError: an argument or a file is invalid, or nothing can be recommended.
    """
    from recbole_bbqrec.quick_start import load_run
    from recbole_bbqrec.run_files.names import RunFiles
    from recbole_bbqrec.serving.lists import ListOptions, check_output, write_lists

    check_output(args.output)
    run = load_run(args.run, {} if args.data_path is None else {"data_path": args.data_path})
    options = ListOptions(
        users=args.users, histories=args.histories, topk=args.topk, where=tuple(args.where),
        exclude_seen=args.exclude_seen, allow=args.allow, deny=args.deny, items=args.items,
        explain=args.explain, strict=args.strict, popular=args.fallback == "popular",
    )  # fmt: skip
    model = RunFiles.at(args.run).model
    report = write_lists(run.recommender(), model, args.output, options, _progress)
    print(f"{report.text()}\n{args.output}")
    return 0


def _progress(each: Iterator[int], total: int | None) -> Iterator[int]:
    """Show the users done, on a terminal only."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" users", disable=not sys.stderr.isatty()) as bar:
        for count in each:
            bar.update(count)
            yield count
