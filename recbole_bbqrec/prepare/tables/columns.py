"""Find the column of a table for each role, by the name given or by a usual one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_bbqrec.errors import UserError, did_you_mean

#: Usual names of each role, compared without case, spaces, ``_`` and ``-``; the first found wins.
USUAL = {
    "user": ("user_id", "user", "uid", "reviewer_id", "customer_id", "customer", "visitor_id",
             "account_id", "session_id", "session"),
    "item": ("item_id", "item", "iid", "product_id", "product", "asin", "parent_asin", "sku",
             "article_id", "movie_id", "track_id", "video_id", "news_id", "book_id"),
    # unix_time first: in a prepared data set `timestamp` holds positions
    "time": ("unix_time", "timestamp", "time", "unix_review_time", "event_time", "datetime", "date",
             "ts", "t_dat", "created_at", "review_time", "order_date", "order_time", "ordered_at",
             "purchase_date", "purchase_time", "purchased_at", "event_date", "event_timestamp"),
    "order": ("order", "position"),
    "rating": ("rating", "overall", "stars", "score"),
    "title": ("title", "name", "product_title", "product_name", "item_name", "prod_name"),
}  # fmt: skip

_SEPARATORS = ("\t", ";", "|", ",")  # that a header may hold which was divided otherwise


def find_column(
    path: Path,
    header: Sequence[str],
    role: str,
    name: str | None,
    required: bool = True,
    option: str | None = None,
) -> str | None:
    """Return the column of ``role``: ``name``, or the first usual one; None if not required.

    ``option`` names the column on the command line (None: ``--<role>-column``).

    Raises:
        UserError: the column is absent, or occurs twice in the header.
    """
    option = option or f"--{role}_column"
    if name is not None:
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} ({option}); its header is {_shown(header)}."
                f"{did_you_mean(name, header)} Name one of these."
            )
        return _once(path, header, name)
    for usual in usual_columns(header, role):
        return _once(path, header, usual)
    if not required:
        return None
    raise UserError(
        f"{path} has no column that looks like the {role}'s ({', '.join(USUAL[role])}); its "
        f"header is {_shown(header)}. Name the column with {option}{_other_remedy(header, option)}."
    )


def usual_columns(header: Sequence[str], role: str) -> list[str]:
    """Return the columns with a usual name of the role, the most usual first."""
    plain = {_plain(column): column for column in reversed(header)}
    return [plain[_plain(name)] for name in USUAL[role] if _plain(name) in plain]


def _other_remedy(header: Sequence[str], option: str) -> str:
    """Return what else may be wrong with a header that has no usual name."""
    prefix = "--items_" if option.startswith("--items_") else "--"
    if len(header) == 1:
        found = [mark for mark in _SEPARATORS if mark in header[0]]
        if not found:
            return ""
        return f"; its columns look divided by {found[0]!r}: {prefix}separator={found[0]!r}"
    if header[0] == "1":  # as columns without a header are called
        return ""
    return f", or give {prefix}no_header if this is its first row of data"


def _once(path: Path, header: Sequence[str], name: str) -> str:
    if list(header).count(name) > 1:
        raise UserError(f"{path} has two columns {name!r}; expected one. Rename the other.")
    return name


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


def _shown(header: Sequence[str]) -> str:
    text = ", ".join(header)
    return text if len(text) <= 300 else text[:300] + " ..."
