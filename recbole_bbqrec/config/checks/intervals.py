"""Check RecBole's intervals, such as ``[5,inf)`` or ``(4,20];[50,inf)``."""

from __future__ import annotations

from typing import Any


def are_intervals(value: Any) -> bool:
    """Return True if RecBole can read every interval of ``value``; it skips those it cannot."""
    return all(map(_is_interval, str(value).split(";")))


def _is_interval(text: str) -> bool:
    text = text.strip()
    ends = text[1:-1].split(",")
    if text[:1] not in ("[", "(") or text[-1:] not in ("]", ")") or len(ends) != 2:
        return False
    try:
        low, high = map(float, ends)
    except ValueError:
        return False
    return low < high or (low == high and text[0] == "[" and text[-1] == "]")  # False for NaN
