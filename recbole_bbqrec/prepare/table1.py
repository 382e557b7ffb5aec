"""Compare a prepared data set's counts with the paper's Table 1; explain differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Users, items, interactions, items with image, items with text, average length, as printed.
PAPER_TABLE1 = {
    "Beauty": (22363, 12101, 198502, 12009, 12094, 8.88),
    "Sports": (35598, 18357, 296337, 18177, 18317, 8.32),
    "Clothing": (39387, 23033, 278677, 22879, 23032, 7.08),
    "Toys": (19412, 11924, 169597, 11838, 11890, 8.63),
}
_COLUMNS = ("users", "items", "interactions", "with image", "with text", "avg length")
# Reviews in the public file where the paper prints another number.
_PUBLIC_REVIEWS = {"Toys": 167597}


@dataclass(frozen=True)
class PreparedReport:
    """Counts of a prepared data set, over the items that occur in an interaction.

    ``with_text`` counts items with any text that the encoder reads (``text_fields``);
    ``with_title`` those with a title or description, which is what the paper counts as text.
    ``image_encoder`` names the origin of the image vectors (empty: no vectors); ``image_features``
    is True for the CNN features that the paper used. ``notes`` are shown below the table.
    """

    name: str
    directory: Path
    users: int
    items: int
    interactions: int
    with_image: int
    with_text: int
    with_title: int
    text_encoder: str
    text_fields: tuple[str, ...] = ()
    image_encoder: str = ""
    image_features: bool = False
    notes: tuple[str, ...] = ()

    @property
    def average_length(self) -> float:
        """Return interactions per user."""
        return self.interactions / self.users

    @property
    def row(self) -> tuple[int | float, ...]:
        """Return the data set's row of Table 1, the average rounded to 2 decimals."""
        counts = (self.users, self.items, self.interactions, self.with_image, self.with_text)
        return (*counts, round(self.average_length, 2))

    def table(self) -> str:
        """Return the row as text, then the paper's if there is one, and explain each difference."""
        paper = PAPER_TABLE1.get(self.name)
        found = explanations(self)
        marked = [_text(v) + ("*" if c in found else " ") for c, v in zip(_COLUMNS, self.row)]
        rows = [["", *(column + " " for column in _COLUMNS)], ["prepared", *marked]]
        if paper is not None:
            rows.append(["paper", *(_text(value) + " " for value in paper)])
        lines = [f"{self.name}: {self.directory}"]
        lines += ["".join(cell.rjust(14) for cell in row).rstrip() for row in rows]
        lines += [f"* {column}: {reason}" for column, reason in found.items()]
        if paper is not None and not found:
            lines.append("Every count is the paper's.")
        lines.append(
            f"Items with a title or description: {self.with_title:,}. "
            f"Text encoder: {self.text_encoder}."
        )
        if self.image_encoder:
            lines.append(f"Image encoder: {self.image_encoder}.")
        return "\n".join([*lines, *self.notes])


def explanations(report: PreparedReport) -> dict[str, str]:
    """Return column -> why it differs from the paper's; empty for data sets not in the paper."""
    paper = PAPER_TABLE1.get(report.name)
    if paper is None:
        return {}
    found = {}
    for column, ours, theirs in zip(_COLUMNS, report.row, paper):
        if ours != theirs:
            size = f"{_text(abs(round(ours - theirs, 2)))} {'more' if ours > theirs else 'fewer'}"
            if column == "avg length":
                size = f"{_text(ours)} against {_text(theirs)}"
            found[column] = f"{size}; {_reason(report, column)}."
    return found


def _reason(report: PreparedReport, column: str) -> str:
    if column == "interactions" and report.interactions == _PUBLIC_REVIEWS.get(report.name):
        length = PAPER_TABLE1[report.name][5]
        return (
            f"the public file has {report.interactions:,}, which also gives the paper's average "
            f"length, {length}: its count looks like a misprint"
        )
    if column == "with image":
        if not report.with_image:
            return "no image features were prepared"
        if not report.image_features:
            return f"the vectors are made of {report.image_encoder}"
        return "the feature file has vectors for another number of these items"
    if column == "with text":
        has = f"{report.with_title:,} items have a title or description"
        if report.with_title == PAPER_TABLE1[report.name][4]:
            has += ", as many as in the paper"
        if set(report.text_fields) <= {"title", "description"}:
            return has
        return f"counted is any of {', '.join(report.text_fields)}; {has}"
    if column == "avg length":
        return "it follows from the users and interactions"
    return "no reason is known: check that the files are the public 5-core ones of 2014"


def _text(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
