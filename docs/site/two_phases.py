"""Draw the two phases as SVG, for light and dark pages: ``python docs/site/two_phases.py``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1]


class Colours(NamedTuple):
    """Colours of one drawing; the three signals' are told apart by the colour-blind, too."""

    text: str
    faint: str
    box: str
    id: str
    words: str
    image: str


THEMES = {
    "light": Colours("#1f2933", "#5b6770", "#f1f4f6", "#0072b2", "#d55e00", "#009e73"),
    "dark": Colours("#e6e9ec", "#9aa5b1", "#2b333b", "#56b4e9", "#e69f00", "#2bc89b"),
}
_CODES = (("17", "203", "64"), ("88", "41", "9"), ("5", "160", "112"))  # [level][signal]
_HISTORY = ("item 12", "item 7", "item 31")


def draw(c: Colours) -> str:
    """Return the drawing as the text of an SVG file, 960 wide and 352 high."""
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 352" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
        "<title>Phase one turns each item into codes; phase two generates the codes of the next "
        "item</title>",
        f'<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="{c.faint}"/></marker>'
        "</defs>",
    ]

    def write(x: float, y: float, text: str, size: int = 14, colour: str = c.text,
              anchor: str = "middle", weight: int = 400) -> None:  # fmt: skip
        out.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{text}</text>'
        )

    def box(x: float, y: float, w: float, h: float, *lines: str, edge: str = c.faint) -> None:
        out.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" fill="{c.box}" '
            f'stroke="{edge}" stroke-width="1.4"/>'
        )
        for i, line in enumerate(lines):
            middle = y + h / 2 + 5 + (i - (len(lines) - 1) / 2) * 17
            write(x + w / 2, middle, line, 14 if i == 0 else 12, c.text if i == 0 else c.faint)

    def arrow(*points: float) -> None:
        pairs = " ".join(f"{x:g},{y:g}" for x, y in zip(points[::2], points[1::2]))
        out.append(
            f'<polyline points="{pairs}" fill="none" stroke="{c.faint}" stroke-width="1.4" '
            'marker-end="url(#a)"/>'
        )

    def token(x: float, y: float, codes: tuple[str, ...], size: float = 26) -> None:
        for i, (code, colour) in enumerate(zip(codes, (c.id, c.words, c.image))):
            out.append(
                f'<rect x="{x:g}" y="{y + i * size:g}" width="{size + 10:g}" height="{size - 3:g}" '
                f'rx="4" fill="{colour}" fill-opacity=".18" stroke="{colour}"/>'
            )
            write(x + size / 2 + 5, y + i * size + size * 0.62, code, 12)

    # phase one, above
    write(20, 28, "Phase one: what is an item? Its semantic ID", 16, weight=600, anchor="start")
    for i, (name, colour) in enumerate((("ID", c.id), ("text", c.words), ("image", c.image))):
        box(20, 48 + i * 38, 90, 30, name, edge=colour)
        arrow(112, 63 + i * 38, 148, 101)
    box(150, 70, 176, 62, "encoders", "align with behaviour")
    arrow(328, 101, 358, 101)
    box(360, 70, 190, 62, "residual quantization", "codebooks shared by signals")
    arrow(552, 101, 588, 101)
    for level, codes in enumerate(_CODES):
        token(596 + level * 62, 60, codes)
        write(614 + level * 62, 154, f"level {level + 1}", 12, c.faint)
    write(800, 88, "three tokens,", 13, c.text, "start")
    write(800, 106, "from coarse to fine", 13, c.text, "start")

    # phase two, below
    out.append(f'<path d="M20 178H940" stroke="{c.faint}" stroke-opacity=".4"/>')
    write(20, 210, "Phase two: what comes next? Its tokens, one by one", 16, weight=600,
          anchor="start")  # fmt: skip
    for i, name in enumerate(_HISTORY):
        x = 20 + i * 74
        for level in range(3):
            for signal, colour in enumerate((c.id, c.words, c.image)):
                out.append(
                    f'<rect x="{x + level * 19}" y="{242 + signal * 16}" width="16" height="13" '
                    f'rx="3" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>'
                )
        write(x + 27, 310, name, 12, c.faint)
    write(120, 336, "a user's history", 13)
    arrow(236, 265, 272, 265)
    box(274, 234, 150, 62, "encoder", "similar items attend")
    arrow(426, 265, 462, 265)
    box(464, 234, 150, 62, "decoder", "next token, three times")
    arrow(616, 265, 652, 265)
    x, y = 660, 265  # a tree of the items that exist, one path found
    for dy, found in ((-30, False), (0, True), (30, False)):
        _line(out, c, x, y, x + 50, y + dy, found)
        for j, ddy in enumerate((-8, 8)):
            best = found and j == 0
            _line(out, c, x + 50, y + dy, x + 104, y + dy + ddy, best)
            fill = c.words if best else c.box
            out.append(
                f'<circle cx="{x + 108}" cy="{y + dy + ddy}" r="5.5" fill="{fill}" '
                f'stroke="{c.faint}"/>'
            )
    write(714, 336, "beam search over items that exist", 13)
    arrow(778, 257, 822, 257)
    box(826, 229, 114, 56, "ranked items", "1. 2. 3. ... 10.", edge=c.words)
    return "\n".join([*out, "</svg>", ""])


def _line(out: list[str], c: Colours, x: float, y: float, to_x: float, to_y: float,
          best: bool) -> None:  # fmt: skip
    colour, width = (c.words, 2.6) if best else (c.faint, 1.2)
    out.append(
        f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{colour}" stroke-width="{width:g}"/>'
    )


def main() -> None:
    """Write both drawings into docs/."""
    for name, colours in THEMES.items():
        (DOCS / f"two_phases.{name}.svg").write_text(draw(colours), encoding="utf-8")


if __name__ == "__main__":
    main()
