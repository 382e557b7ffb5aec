"""Colours of all pictures: Okabe and Ito's, which the colour-blind tell apart, and greys."""

from __future__ import annotations

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY = "#e69f00", "#56b4e9"
INK, MUTED, LINE, PALE = "#1b1f24", "#59636e", "#d9dee4", "#a9b4c0"

#: Of several series, in this order; a grey comes last.
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK, PALE)
