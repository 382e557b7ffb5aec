"""Recommendations for many users in one file: in parts, so that an interruption loses little.

``OUT.parts/`` holds finished parts as parquet and the plan that they belong to; the same command
goes on after them. The parts become the file ``OUT``, atomically, and are then removed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_bbqrec.answers.filters import Condition, item_table, items_that, mask_of
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

PART = 4096  # users of a part
_NAMED = 20  # unknown tokens kept for the report
_FORMATS = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER",
    ".jsonl": "FORMAT json",
}  # fmt: skip
_IN_PLACE = "USE_TMP_FILE false"  # else DuckDB writes a file of its own beside the unfinished one


@dataclass(frozen=True)
class ListOptions:
    """Options of the lists to write; paths are None where not given.

    Attributes:
        users, histories: files of :mod:`.inputs`; neither: all users of the data set.
        topk: items for each user.
        exclude_seen: leave out every item that the user has an event with.
        allow, deny: files with an item token a line.
        where: conditions on columns of ``items``, by default NAME.item of the run's data.
        explain: add the column ``because``.
        strict: refuse unknown users and items instead of leaving them out.
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


@dataclass
class ListReport:
    """Counts of lists written and left out; ``unknown`` counts the tokens of each kind."""

    users: int = 0
    rows: int = 0
    short: int = 0  # users for whom fewer than topk items are allowed
    left_out: int = 0  # users without anything to go by
    unknown: dict[str, dict[str, int]] = field(default_factory=lambda: {"user": {}, "item": {}})

    def text(self) -> str:
        """Return the report as lines."""
        lines = [f"{self.rows:,} recommendations for {self.users:,} users"]
        if self.short:
            lines.append(f"{self.short:,} users: fewer items are allowed than --topk")
        for kind, tokens in self.unknown.items():
            if tokens:
                named = ", ".join(list(tokens)[:_NAMED])
                more = ", ..." if len(tokens) > _NAMED else ""
                lines.append(f"{len(tokens):,} unknown {kind}s left out: {named}{more}")
        if self.left_out:
            lines.append(f"{self.left_out:,} users have no known item or event: left out")
        return "\n".join(lines)


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
        UserError: an option or a file is invalid, no item is allowed, or ``strict`` and a user or
            item is unknown.
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
            _add(report, read_json_object(note, "a part's report", f"Remove {parts}."))
            yield len(part)

    for _ in progress(work(), total):
        pass
    files = sorted(str(path) for path in parts.glob("*.parquet"))
    if not files:
        raise UserError("There is nobody to recommend to: the file of users is empty.")
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
    for path, value in ((options.allow, True), (options.deny, False)):
        if path is None:
            continue
        tokens = read_item_list(path)
        unknown = [token for token in tokens if token not in recommender.item_ids]
        _count(report, "item", unknown, options.strict, str(path))
        listed = mask_of(recommender.item_ids, recommender.n_items, tokens)
        mask = recommender.every_item() if mask is None else mask
        mask &= listed if value else ~listed
    if options.where:
        conditions = [Condition.parse(text) for text in options.where]
        data, name = Path(recommender.config["data_path"]), recommender.config["dataset"]
        kept = items_that(conditions, options.items or item_table(data, name))
        mask = recommender.every_item() if mask is None else mask
        mask &= mask_of(recommender.item_ids, recommender.n_items, kept)
    if mask is not None and not bool(mask.any()):
        raise UserError(
            "No item is allowed by --allow, --deny and --where together. Widen one of them."
        )
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
        known = [name for name in names if name in recommender.user_ids]
        _count(report, "user", [n for n in names if n not in recommender.user_ids], options.strict,
               str(options.users))  # fmt: skip
        rows = recommender.rows_of_users(known)
        excluded = recommender.seen_by(known) if options.exclude_seen else None
    else:
        kept, histories = [], []
        for asked in part:
            items = [item for item in asked.history or () if item in recommender.item_ids]
            missing = [i for i in asked.history or () if i not in recommender.item_ids]
            _count(report, "item", missing, options.strict, str(options.histories))
            if items:
                kept.append(asked.user)
                histories.append(items)
        known, rows = kept, recommender.rows_of_histories(histories)
        excluded = _padded(recommender, histories) if options.exclude_seen else None
        report.left_out += len(part) - len(kept)
    ids, scores = recommender.best(rows, k, allowed, excluded)
    found = ids > 0
    counts = found.sum(1)
    report.users, report.rows = len(known), int(counts.sum())
    report.short = int((counts < k).sum())
    table = {
        "user": np.repeat(np.array(known, dtype=object), counts),
        "rank": (np.nonzero(found)[1] + 1).astype(np.int32),
        "item": recommender.item_tokens[ids[found]],
        "score": scores[found],
    }
    if recommender.titles:
        titles = recommender.titles
        table["title"] = np.array([titles.get(item, "") for item in table["item"]], dtype=object)
    if reasons is not None:
        texts = reasons.explain(ids, rows[recommender.model.ITEM_SEQ].numpy())
        table["because"] = np.array([text for row in texts for text in row], dtype=object)[
            found.ravel()
        ]
    return pd.DataFrame(table)


def _padded(recommender: Recommender, histories: Sequence[Sequence[str]]) -> Tensor:
    rows = [torch.from_numpy(recommender.ids("item", items)) for items in histories]
    if not rows:
        return torch.zeros(0, 1, dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _count(
    report: ListReport, kind: str, unknown: Sequence[str], strict: bool, source: str
) -> None:
    if unknown and strict:
        raise UserError(
            f"{source} names the unknown {kind} {unknown[0]!r}. Remove it, or leave out --strict."
        )
    _sum(report.unknown[kind], Counter(unknown))


def _add(report: ListReport, part: dict[str, Any]) -> None:
    for name in ("users", "rows", "short", "left_out"):
        setattr(report, name, getattr(report, name) + part[name])
    for kind, tokens in part["unknown"].items():
        _sum(report.unknown[kind], tokens)


def _sum(counts: dict[str, int], others: Mapping[str, int]) -> None:
    for token, count in others.items():
        counts[token] = counts.get(token, 0) + count


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
        listed = ", ".join(f"'{_quoted(Path(file))}'" for file in files)
        form = f"{_FORMATS[suffix.lower()]}, {_IN_PLACE}"
        database.execute(f"COPY (FROM read_parquet([{listed}])) TO '{_quoted(out)}' ({form})")


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "''")
