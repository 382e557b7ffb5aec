"""Events of one time: how many there are, and what orders them."""

from __future__ import annotations

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
    first = events.earlier == 0
    result: dict[str, Any] = {
        "users": int(first.sum()), "users_without_times": int((first & ~events.known).sum()),
    }  # fmt: skip
    second = np.flatnonzero(events.known & ~first)  # later event of each consecutive pair
    if len(second) == 0:
        return result
    tied = events.times[second] == events.times[second - 1]
    same_day = events.days[second] == events.days[second - 1]
    last = events.later[second] == 0
    rank = np.empty(len(tokens), dtype=np.int64)
    rank[_order(tokens)] = np.arange(len(tokens))
    ascends = rank[events.items[second]] > rank[events.items[second - 1]]
    result.update(
        tied_pairs=float(tied.mean()),
        same_day_pairs=float(same_day.mean()),
        tied_last=float(tied[last].mean()),
        same_day_last=float(same_day[last].mean()),
        ascending_ties=float(ascends[tied].mean()) if tied.any() else None,
    )
    return result


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
