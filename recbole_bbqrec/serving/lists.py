"""Recommendations for many users in one file: in parts, so that an interruption loses little.

``OUT.parts/`` holds finished parts as parquet and the plan that they belong to; the same command
goes on after them. The parts become the file ``OUT``, atomically, and are then removed.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_bbqrec.answers.filters import (
    Condition,
    item_table,
    items_that,
    mask_of,
    warn_of_missing_rows,
)
from recbole_bbqrec.answers.reasons import Reasons
from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.atomic import (
    atomic_path,
    remove_folder,
    remove_unfinished,
    sha256_of,
    write_text,
    writing,
)
from recbole_bbqrec.data.features import read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import read_json_object
from recbole_bbqrec.serving.inputs import Asked, histories_in, in_parts, users_in
from recbole_bbqrec.serving.list_report import ListReport, none_known

PART = 4096  # users of a part
_FORMATS = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER",
    ".jsonl": "FORMAT json",
}  # fmt: skip
_POPULAR = "most events"  # why an item is listed for someone of whom nothing is known
_IN_PLACE = "USE_TMP_FILE false"  # else DuckDB writes a file of its own beside the unfinished one


@dataclass(frozen=True)
class ListOptions:
    """Options of the lists to write; paths are None where not given.

    Attributes:
        users, histories: files of :mod:`.inputs`; neither: all users of the data set.
        topk: items for each user.
        exclude_seen: leave out every item that the user has an event with.
        allow, deny: files with an item token a line.
        where: conditions on columns of ``items``, by default the run's own.
        explain: add the column ``because``.
        strict: refuse unknown users and items, and empty histories, instead of leaving them out.
        popular: list the items with the most events, without scores, for unknown users and after
            histories without a known item, instead of leaving them out.
    """

    users: Path | None = None
    histories: Path | None = None
    topk: int = 20
    exclude_seen: bool = False
    allow: Path | None = None
    deny: Path | None = None
    where: tuple[str, ...] = ()
    items: Path | None = None
    explain: bool = False
    strict: bool = False
    popular: bool = False


def check_output(path: Path) -> None:
    """Raise a UserError unless ``path`` is a new file of a known format."""
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"--output is {path}; expected a name that ends in {', '.join(_FORMATS)}.")
    if path.exists():
        remove_unfinished(path.parent, of=path.name)
        raise UserError(f"--output is {path}, which exists; it is never replaced. Choose another.")


def write_lists(
    recommender: Recommender,
    run: Path,
    out: Path,
    options: ListOptions,
    progress: Callable[[Iterator[int], int | None], Iterator[int]] = lambda each, _: each,
) -> ListReport:
    """Write the recommendations to ``out``.

    Args:
        recommender: the loaded run.
        run: the file of its model, which the plan of the parts names.
        out: a file of the kind that its suffix says.
        options: see there.
        progress: wraps the numbers of users done, part by part, with their total if it is known.

    Raises:
        UserError: an option or a file is invalid, no item is allowed, no user or item of a file is
            known, or ``strict`` and one is unknown.
    """
    check_output(out)
    if options.users and options.histories:
        raise UserError("--users and --histories are both given; expected one or none.")
    if not 1 <= options.topk < recommender.n_items:
        raise UserError(
            f"--topk is {options.topk}; expected 1 to {recommender.n_items - 1}, the items of the "
            "data set."
        )
    report = ListReport()
    allowed = allowed_items(recommender, options, report)
    reasons = Reasons(recommender) if options.explain else None
    parts = out.with_name(f"{out.name}.parts")
    _open_parts(parts, _plan(run, options))
    asked, total = _asked(recommender, options)

    def work() -> Iterator[int]:
        for number, part in enumerate(in_parts(asked, PART)):
            path, note = parts / f"{number:06d}.parquet", parts / f"{number:06d}.json"
            if not note.is_file():
                own = ListReport()
                table = _recommended(recommender, part, options, allowed, reasons, own)
                _write(table, path)
                write_text(note, json.dumps(asdict(own)))
            report.add(read_json_object(note, "a part's report", f"Remove {parts}."))
            yield len(part)

    for _ in progress(work(), total):
        pass
    files = sorted(str(path) for path in parts.glob("*.parquet"))
    if not files:
        raise UserError("There is nobody to recommend to: the file of users is empty.")
    if options.users and not report.users:
        remove_folder(parts, of=out.name)
        expected = "one user token a line (.txt), or a table with a column of users"
        raise none_known("users", options.users, "user", list(report.unknown["user"]), expected)
    with atomic_path(out) as temporary:
        _merge(files, temporary, out.suffix)
        remove_folder(parts, of=out.name)
    return report


def allowed_items(
    recommender: Recommender, options: ListOptions, report: ListReport
) -> Tensor | None:
    """Return the items that the options allow, bool [n_items]; None where they name none.

    Raises:
        UserError: a file or condition is invalid, ``strict`` and an item is unknown, or no item is
            left.
    """
    mask: Tensor | None = None
    for name, value in (("allow", True), ("deny", False)):
        path = getattr(options, name)
        if path is None:
            continue
        tokens = read_item_list(path)
        unknown = [token for token in tokens if token not in recommender.item_ids]
        if len(unknown) == len(tokens):
            raise none_known(name, path, "item", unknown, "one item token a line")
        report.count("item", unknown, options.strict, str(path))
        listed = mask_of(recommender.item_ids, recommender.n_items, tokens)
        mask = recommender.every_item() if mask is None else mask
        mask &= listed if value else ~listed
    if options.where:
        conditions = [Condition.parse(text) for text in options.where]
        data, name = Path(recommender.config["data_path"]), recommender.config["dataset"]
        table = options.items or item_table(data, name)
        kept = items_that(conditions, table)
        warn_of_missing_rows(table, recommender.item_ids)
        mask = recommender.every_item() if mask is None else mask
        mask &= mask_of(recommender.item_ids, recommender.n_items, kept)
    if mask is not None and not bool(mask.any()):
        given = [f"--{name}" for name in ("allow", "deny") if getattr(options, name) is not None]
        given += [f'--where="{text}"' for text in options.where]
        raise UserError(f"No item is allowed by {', '.join(given)}. Widen one of them.")
    return mask


# helpers --------------------------------------------------------------------------------------


def _asked(recommender: Recommender, options: ListOptions) -> tuple[Iterator[Asked], int | None]:
    if options.users is not None:
        return users_in(options.users), None
    if options.histories is not None:
        return histories_in(options.histories), None
    return (Asked(user, None) for user in recommender.user_ids), len(recommender.user_ids)


def _recommended(
    recommender: Recommender,
    part: Sequence[Asked],
    options: ListOptions,
    allowed: Tensor | None,
    reasons: Reasons | None,
    report: ListReport,
) -> pd.DataFrame:
    """Return the recommendations for one part of the users, a row each."""
    k, names = options.topk, [asked.user for asked in part]
    if options.histories is None:
        kept = [n for n, name in enumerate(names) if name in recommender.user_ids]
        missing = [name for name in names if name not in recommender.user_ids]
        report.count("user", missing, options.strict, str(options.users))
        known = [names[n] for n in kept]
        rows = recommender.rows_of_users(known)
        excluded = recommender.seen_by(known) if options.exclude_seen else None
    else:
        kept, histories = [], []
        for number, asked in enumerate(part):
            items = [item for item in asked.history or () if item in recommender.item_ids]
            missing = [i for i in asked.history or () if i not in recommender.item_ids]
            report.count("item", missing, options.strict, str(options.histories))
            if items:
                kept.append(number)
                histories.append(items)
            elif options.strict and not options.popular:
                raise UserError(
                    f"{options.histories}: the history of {asked.user!r} is empty. Remove the "
                    "user, or leave out --strict."
                )
            elif not options.popular:
                report.left_out_users.append(asked.user)
        rows = recommender.rows_of_histories(histories)
        excluded = _padded(recommender, histories) if options.exclude_seen else None
        report.left_out = len(report.left_out_users)
    if options.popular:
        ids = np.tile(recommender.popular(k, allowed), (len(names), 1))
        scores = np.full(ids.shape, np.nan, dtype=np.float32)
        ids[kept], scores[kept] = recommender.best(rows, k, allowed, excluded)
        report.popular = len(names) - len(kept)
    else:
        ids, scores = recommender.best(rows, k, allowed, excluded)
        names = [names[n] for n in kept]
    found = ids > 0
    counts = found.sum(1)
    report.users, report.rows = len(names), int(counts.sum())
    report.short = int((counts < k).sum())
    table = {
        "user": np.repeat(np.array(names, dtype=object), counts),
        "rank": (np.nonzero(found)[1] + 1).astype(np.int32),
        "item": recommender.item_tokens[ids[found]],
        "score": scores[found],
    }
    if recommender.titles:
        titles = recommender.titles
        table["title"] = np.array([titles.get(item, "") for item in table["item"]], dtype=object)
    if reasons is not None:
        texts = np.full(ids.shape, _POPULAR, dtype=object)
        places = kept if options.popular else slice(None)
        history = rows[recommender.model.ITEM_SEQ].numpy()
        texts[places] = reasons.explain(ids[places], history)
        table["because"] = texts[found]
    return pd.DataFrame(table)


def _padded(recommender: Recommender, histories: Sequence[Sequence[str]]) -> Tensor:
    rows = [torch.from_numpy(recommender.ids("item", items)) for items in histories]
    if not rows:
        return torch.zeros(0, 1, dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _plan(run: Path, options: ListOptions) -> dict[str, Any]:
    """Describe what the parts belong to: the model, the options and the content of the files."""
    values = {}
    for name, value in asdict(options).items():
        is_file = isinstance(value, Path) and value.is_file()
        values[name] = sha256_of(value) if is_file else value
    text = json.dumps([sha256_of(run), PART, values], default=str)
    return {"plan": hashlib.sha256(text.encode()).hexdigest()}


def _open_parts(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder of parts, or go on with those of the same plan.

    Raises:
        UserError: the parts there are of another command.
    """
    path = folder / "plan.json"
    if not path.is_file():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(plan))
    elif read_json_object(path, "the plan of parts", f"Remove {folder}.") != plan:
        raise UserError(
            f"{folder} holds parts of another command or model. Remove it, or "
            "choose another --output."
        )


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary, duckdb.connect(":memory:") as database:
        database.register("rows_of_part", table)
        form = f"{_FORMATS['.parquet']}, {_IN_PLACE}"
        database.execute(f"COPY rows_of_part TO '{_quoted(temporary)}' ({form})")


def _merge(files: Sequence[str], out: Path, suffix: str) -> None:
    with duckdb.connect(":memory:") as database:
        listed = ", ".join(f"'{_quoted(Path(glob.escape(file)))}'" for file in files)
        form = f"{_FORMATS[suffix.lower()]}, {_IN_PLACE}"
        database.execute(f"COPY (FROM read_parquet([{listed}])) TO '{_quoted(out)}' ({form})")


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "''")
