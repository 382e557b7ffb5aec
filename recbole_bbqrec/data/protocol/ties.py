"""Events of one time: how many there are, and what orders them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from recbole_bbqrec.data.protocol.events import Events

WARN_ABOVE = 0.05  # share of test targets tied with the item before


def tie_statistics(events: Events, tokens: np.ndarray) -> dict[str, Any]:
    """Describe the ties of a data set in the order of its file; ``tokens`` are its items' tokens.

    Returns:
        ``users_without_times``; if any time is known also, of the events whose time is known, the
        shares of consecutive pairs of one time (``tied_pairs``) and of one day
        (``same_day_pairs``), the same of each user's last pair (``tied_last``, ``same_day_last``),
        and, of the tied pairs, the share whose tokens ascend (``ascending_ties``; None without
        ties).
    """
    rank = np.empty(len(tokens), dtype=np.int64)
    rank[_order(tokens)] = np.arange(len(tokens))
    counts = sum((_counts(piece, rank) for piece in events.pieces()), Counter())
    result: dict[str, Any] = {key: counts[key] for key in ("users", "users_without_times")}
    if not counts["pairs"]:
        return result
    shares = {key: counts[key] / counts["pairs"] for key in ("tied_pairs", "same_day_pairs")}
    shares.update({key: counts[key] / counts["last"] for key in ("tied_last", "same_day_last")})
    ties = counts["tied_pairs"]
    return {**result, **shares, "ascending_ties": counts["ascending"] / ties if ties else None}


def _counts(events: Events, rank: np.ndarray) -> Counter[str]:
    """Count users and pairs of consecutive events; ``rank`` [n_items] orders the items' tokens."""
    first = events.earlier == 0
    second = np.flatnonzero(events.known & ~first)  # later event of each consecutive pair
    tied = events.times[second] == events.times[second - 1]
    same_day = events.days[second] == events.days[second - 1]
    last = events.later[second] == 0
    ascends = rank[events.items[second]] > rank[events.items[second - 1]]
    found = {
        "users": first, "users_without_times": first & ~events.known, "last": last,
        "tied_pairs": tied, "same_day_pairs": same_day, "ascending": ascends & tied,
        "tied_last": tied & last, "same_day_last": same_day & last,
    }  # fmt: skip
    return Counter({"pairs": len(second), **{key: int(v.sum()) for key, v in found.items()}})


def tie_lines(statistics: dict[str, Any]) -> list[str]:
    """Return sentences about the ties of a data set; none about an empty description."""
    if not statistics:
        return []
    users, unknown = statistics["users"], statistics["users_without_times"]
    if "tied_pairs" not in statistics:
        return [f"Times: not known for any of the {users:,} users; events are in the file's order"]
    shares = {key: f"{100 * value:.1f} %" for key, value in statistics.items() if _is_share(value)}
    lines = [
        f"Times: {shares['tied_pairs']} of consecutive pairs and {shares['tied_last']} of the "
        f"users' last items are tied with the item before ({shares['same_day_pairs']} and "
        f"{shares['same_day_last']} lie on one day)"
    ]
    if unknown:
        lines[0] += f"; not known for {unknown:,} of {users:,} users"
    if statistics["ascending_ties"] is not None:
        lines.append(
            f"Ties are in the order of the file: {shares['ascending_ties']} ascend by item id"
        )
    return lines


def _is_share(value: Any) -> bool:
    return isinstance(value, float)


def _order(tokens: np.ndarray) -> np.ndarray:
    """Sort tokens as numbers if all are numbers, otherwise as texts; the first is padding."""
    texts = [str(token) for token in tokens[1:]]
    numeric = all(text.isdecimal() for text in texts)
    values = np.array([int(text) for text in texts] if numeric else texts, dtype=object)
    return np.r_[0, np.argsort(values, kind="stable") + 1]
