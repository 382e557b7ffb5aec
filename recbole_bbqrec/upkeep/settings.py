"""Defaults that the command line shows; nothing is imported here, so that help is quick."""

from __future__ import annotations

EPOCHS = 2  # of phase two in an update, see docs/update.md
#: Items whose mean stands for what training alone could teach, see docs/new_items.md.
NEAREST = 10
