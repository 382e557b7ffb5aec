"""Format an inspection as text."""

from __future__ import annotations

import numpy as np

from recbole_bbqrec.data.protocol.ties import tie_lines
from recbole_bbqrec.data.titles import without_controls
from recbole_bbqrec.inspection.measures import Inspection, Neighbours

_BAR = 40


def as_text(found: Inspection, width: int = 100) -> str:
    """Return the whole inspection in lines of at most about ``width`` characters."""
    users, items = len(found.lengths), len(found.counts)
    lines = [
        f"{found.name}: {found.directory}",
        f"  {users:,} users, {items:,} items, {found.interactions:,} interactions, density "
        f"{found.interactions / users / items:.3%}",
        f"  {found.repeats:,} repeated (a user again with the same item)",
        *(f"  {line}" for line in tie_lines(found.ties)),
        *(["Rows not counted here:", found.left_out.table()] if found.left_out.reasons else []),
        "",
        f"Interactions a user: {summary(found.lengths)}",
        *_histogram(found.lengths),
        "",
        f"Interactions an item: {summary(found.counts)}",
        *_histogram(found.counts),
        "",
    ]
    if not found.modalities:
        lines.append("No features in this folder: no NAME.<modality>.npy.")
    for m in found.modalities:
        lines.append(
            f"{m.name}: {m.items:,} of {items:,} items ({share(m.items, items)}), "
            f"{m.interactions:.1%} of the interactions, {m.dim} dimensions"
        )
        lines.append("  " + clip(m.encoder, width - 2))
    for query, by_modality in found.neighbours.items():
        lines += ["", f"Nearest to {label(found, query, width - 11)}"]
        for name, neighbours in by_modality.items():
            lines += [f"  by {name}", *_neighbour_lines(found, neighbours, width)]
    return "\n".join(lines)


def summary(values: np.ndarray) -> str:
    """Return minimum, median, mean, 90th percentile and maximum of integers."""
    low, middle, high = np.percentile(values, (0, 50, 90))
    return (
        f"least {low:.0f}, median {middle:g}, mean {values.mean():.2f}, 90 % up to {high:.0f}, "
        f"most {values.max():,}"
    )


def doubling_bins(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return edges that double (1, 2, 4, ...) from below the minimum, and counts between them."""
    low = int(np.log2(values.min()))
    high = int(np.log2(values.max())) + 1
    edges = 2 ** np.arange(low, high + 1)
    return edges, np.histogram(values, bins=edges)[0]


def clip(text: str, width: int) -> str:
    """Cut text to ``width`` characters, the last an ellipsis, without control characters."""
    text = without_controls(text)
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def label(found: Inspection, code: int, width: int) -> str:
    """Return an item's token and title."""
    title = found.titles[code]
    return clip(f"{found.tokens[code]}  {title}" if title else found.tokens[code], width)


def share(part: int, whole: int) -> str:
    """Format a share as a percentage that is 100 only for a share of 1."""
    percent = 100 * part / whole
    return f"{min(percent, 99.9) if part < whole else percent:.1f}%"


def _histogram(values: np.ndarray) -> list[str]:
    edges, counts = doubling_bins(values)
    longest = max(counts.max(), 1)
    names = [f"{a:,}" if b == a + 1 else f"{a:,}-{b - 1:,}" for a, b in zip(edges, edges[1:])]
    left, right = max(map(len, names)), max(len(f"{count:,}") for count in counts)
    return [
        f"  {name:>{left}}  {count:>{right},}  {'#' * -(-_BAR * count // longest)}"
        for name, count in zip(names, counts.tolist())
    ]


def _neighbour_lines(found: Inspection, neighbours: Neighbours, width: int) -> list[str]:
    if not neighbours.present:
        return ["    the item has no such feature"]
    return [
        f"    {cosine:5.2f}  {label(found, item, width - 11)}"
        for item, cosine in zip(neighbours.items, neighbours.cosine)
    ]
