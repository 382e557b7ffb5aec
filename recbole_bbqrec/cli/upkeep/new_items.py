"""Arguments of the verbs that give a finished run new items."""

from __future__ import annotations

from pathlib import Path

from recbole_bbqrec.cli.arguments import Add, add_fields
from recbole_bbqrec.cli.prepare import ITEMS
from recbole_bbqrec.prepare.tables.items import ItemOptions


def add_new_items(add: Add) -> None:
    """Add the table of new items, its columns, their vectors and the encoder of their texts."""
    add("--items", "FILE", "table of new items (CSV, TSV, parquet, JSON lines): tokens, titles and "
        "texts; items that the run has stay as they are (default: none)", type=Path)  # fmt: skip
    add("--features", "MOD=FILE.npy[,ITEMS.txt]", "vectors of a modality that the run reads, and "
        "the item of each row (default: the rows of --items); may be given several times",
        action="append", default=[])  # fmt: skip
    add("--text_encoder", "NAME", "sentence encoder of the run's texts, where it lies in a "
        "folder (default: that of the run)")  # fmt: skip
    add_fields(add, ItemOptions, ITEMS)
