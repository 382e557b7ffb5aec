"""Learning curves of each phase, from the lines of ``epochs.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from recbole_bbqrec.run_files.epochs import Line

#: Statistics of the codes, averaged over the signals: one curve per level.
_BY_LEVEL = ("utilisation", "perplexity")


def learning_curves(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return an entry per phase, in their order: ``phase``, ``epochs``, ``panels``.

    A panel is a group of curves of one unit, {"name", "series": {label: [[epoch, value], ...]}};
    unknown values are left out.
    """
    return [
        {
            "phase": phase,
            "epochs": sum(line["phase"] == phase for line in lines),
            "panels": _panels([line for line in lines if line["phase"] == phase]),
        }
        for phase in dict.fromkeys(line["phase"] for line in lines)
    ]


def _panels(lines: Sequence[Line]) -> list[dict[str, Any]]:
    terms = _grouped((line["epoch"], line.get("terms", {})) for line in lines)
    valid = _grouped((line["epoch"], line.get("valid", {})) for line in lines)
    rate = [[x["epoch"], x["learning_rate"]] for x in lines if x.get("learning_rate") is not None]
    panels = [{"name": name, "series": series} for name, series in terms.items()]
    panels += [{"name": f"validation {name}", "series": series} for name, series in valid.items()]
    if rate:
        panels.append({"name": "learning rate", "series": {"": rate}})
    return panels


def _grouped(rows: Iterable[tuple[int, dict[str, Any]]]) -> dict[str, dict[str, list[list[float]]]]:
    """Group values by panel and label, in the order of their first occurrence."""
    groups: dict[str, dict[str, list[list[float]]]] = {}
    for epoch, values in rows:
        levels: dict[tuple[str, str], list[float]] = {}
        for name, value in values.items():
            if value is None:
                continue
            group, _, label = name.partition("/")
            if group in _BY_LEVEL:
                levels.setdefault((group, label.partition("/")[0]), []).append(value)
                continue
            if not label:
                group, label = _of_plain_name(name)
            groups.setdefault(group, {}).setdefault(label, []).append([epoch, value])
        for (group, label), parts in levels.items():
            mean = sum(parts) / len(parts)
            groups.setdefault(group, {}).setdefault(label, []).append([epoch, mean])
    return groups


def _of_plain_name(name: str) -> tuple[str, str]:
    """Return group and label of ``loss``, ``level_2`` or ``ndcg@10``."""
    if name.startswith("level_"):
        return "loss by level", name.replace("_", " ")
    metric, at, _ = name.partition("@")
    return (metric, name) if at else (name, "")
