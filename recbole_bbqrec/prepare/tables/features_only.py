"""Features beside a data set in RecBole's format, whose interactions stay as they are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from recbole_bbqrec.atomic import folder_beside, write_text, writing
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import ITEM_TABLE
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder
from recbole_bbqrec.prepare.folder import TFIDF
from recbole_bbqrec.prepare.item_table import write_item_table
from recbole_bbqrec.prepare.tables.build import OwnSource, encode_item_text, open_own_encoder
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.features import write_features
from recbole_bbqrec.prepare.tables.items import ItemOptions, read_items
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.query import Table
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.prepare.written_files import (
    add_to_record,
    check_no_input,
    check_replaceable,
    read_entries,
)
from recbole_bbqrec.reading import reading


@dataclass(frozen=True)
class FeaturesReport:
    """Report on features made beside the interactions of a data set of ``items`` items."""

    name: str
    directory: Path
    items: int
    modalities: Mapping[str, Mapping[str, Any]]
    ledger: Ledger
    strict: bool

    def table(self) -> str:
        """Return the report as text, with the command that trains on the features."""
        lines = [f"{self.name}: {self.directory}, {self.items:,} items with interactions"]
        for modality, entry in self.modalities.items():
            share = 100 * entry["items"] / self.items
            lines.append(
                f"  {modality}: {entry['items']:,} items ({share:.1f} %), {entry['dimension']} "
                f"dimensions, {entry['encoder']}"
            )
        left_out = self.ledger.table()
        lines += ["Left out or incomplete:", left_out] if left_out else ["Nothing was left out."]
        names = ",".join(self.modalities)
        root = shlex.quote(str(self.directory.parent))
        lines.append(
            f"Train: python -m recbole_bbqrec run --model=BBQRec --dataset={self.name} "
            f"--data_path={root} '--modalities=[{names}]'"
        )
        return "\n".join(lines)


def prepare_features(
    name: str,
    source: OwnSource,
    output_root: str | os.PathLike[str],
    items: ItemOptions | None = None,
    item_column: str | None = None,
    text_encoder: str = TFIDF,
    force: bool = False,
    strict: bool = False,
) -> FeaturesReport:
    """Make features for the items of ``output_root/name``; its other files stay as they are.

    Args:
        name: a data set in RecBole's format: ``NAME.inter``, or split files ``NAME.<part>.inter``.
        source: items and feature matrices; its interactions are not read.
        output_root: RecBole's ``data_path``.
        items: columns of the table of items.
        item_column: column of the item in the interactions; None finds the usual ones.
        text_encoder: as in :func:`recbole_bbqrec.prepare.text.encode_texts`; not used when the
            modality ``text`` is given as a matrix.
        force: replace features that `prepare` made earlier.
        strict: refuse faulty rows instead of leaving them out.

    Raises:
        UserError: there is no such data set, nothing to make features of, or a file is invalid;
            features are there already and ``force`` is not set, or were not made by ``prepare``.
    """
    folder, items = Path(output_root) / name, items or ItemOptions()
    given = source.modalities()
    encodes = source.items is not None and "text" not in given
    made = [*(["text"] if encodes else []), *given]
    if not made:
        raise UserError(
            "--features_only is given; expected --items=FILE, whose texts are encoded, or "
            "--features=NAME=FILE.npy,ITEMS.txt, or both."
        )
    files = {f"{name}.{m}.{kind}" for m in made for kind in ("npy", "items.txt")}
    files |= {f"{name}.text.encoder.npz"} if encodes else set()
    if source.items is not None and not _is_own(source.items, folder, name):
        files.add(f"{name}.{ITEM_TABLE}")
    inputs = [path for each in source.features for path in each.paths()]
    check_no_input(folder, files, [*inputs, *([source.items] if source.items else [])])
    catalogue = {token: code for code, token in enumerate(_items_of(folder, name, item_column))}
    _check_place(folder, name, files, force)
    encoder = open_own_encoder(text_encoder) if encodes else TFIDF  # before the long work
    ledger = Ledger()
    with writing(folder), folder_beside(folder / name) as work:
        entries = _write(work, folder, name, source, items, catalogue, encoder, ledger)
        if strict:
            ledger.refuse_faults()
        _put(work, folder, name, entries)
    return FeaturesReport(name, folder, len(catalogue), entries, ledger, strict)


# helpers --------------------------------------------------------------------------------------


def _items_of(folder: Path, name: str, column: str | None) -> list[str]:
    """Return the raw tokens of the items in the interactions, in the order met."""
    whole = folder / f"{name}.inter"
    paths = [whole] if whole.is_file() else sorted(folder.glob(f"{name}.*.inter"))
    if not paths:
        raise UserError(
            f"{whole} is not there; --features_only makes features beside a data set in RecBole's "
            "format. Check the name and --data_path, or give --interactions to make a data set."
        )
    tokens: dict[str, None] = {}
    for path in paths:
        with reading(path, "RecBole's file of interactions", "Correct the file."):
            with open(path, encoding="utf-8") as file:
                words = file.readline().rstrip("\r\n").split("\t")
            names = [word.partition(":")[0] for word in words]
            item = find_column(path, names, "item", column)
            place = words[names.index(str(item))]
            chunks: Any = pd.read_csv(
                path, sep="\t", usecols=[place], dtype=str, chunksize=1 << 20, encoding="utf-8"
            )
            for chunk in chunks:
                tokens.update(dict.fromkeys(chunk[place].dropna().unique().tolist()))
    if not tokens:
        raise UserError(f"{paths[0]} holds no interactions; expected one a line below its header.")
    return list(tokens)


def _check_place(folder: Path, name: str, files: set[str], force: bool) -> None:
    check_replaceable(folder, name, sorted(files))
    there = sorted(file for file in files if (folder / file).exists())
    if there and not force:
        raise UserError(f"{folder / there[0]} already exists; use --force to replace it.")


def _write(
    work: Path,
    folder: Path,
    name: str,
    source: OwnSource,
    options: ItemOptions,
    catalogue: Mapping[str, int],
    encoder: str | SentenceEncoder,
    ledger: Ledger,
) -> dict[str, dict[str, Any]]:
    """Write all files but features.yaml to ``work``; return its entries."""
    names: Sequence[str] = list(catalogue)
    entries: dict[str, dict[str, Any]] = {}
    row_codes = None
    if source.items is not None:
        with TextStore(work) as store:
            titles = work / f"{name}.titles.tsv"
            table = read_items(source.items, options, catalogue, titles, store, ledger)
            row_codes = table.codes
            if not _is_own(source.items, folder, name):
                write_item_table(source.items, options, names, work / name)
            if "text" not in {file.modality for file in source.features}:
                if not len(table.texts):
                    raise UserError(
                        f"{source.items} gives no item a text; its columns are "
                        f"{', '.join(_header(source.items, options))}. Name those that hold texts "
                        "with --text_columns."
                    )
                stem, chunks = work / f"{name}.text", folder / f".{name}.text"
                entries["text"] = encode_item_text(stem, chunks, table, names, encoder, ledger)
    for file in source.features:
        stem = work / f"{name}.{file.modality}"
        entries[file.modality] = write_features(file, catalogue, names, row_codes, stem, ledger)
    return entries


def _is_own(items: Path, folder: Path, name: str) -> bool:
    """Return True for NAME.item, whose columns a run has anyway."""
    own = folder / f"{name}.item"
    return items.exists() and own.exists() and items.samefile(own)


def _header(path: Path, options: ItemOptions) -> list[str]:
    with Table(path, options.separator, not options.no_header) as table:
        if table.json_lines:
            table.read_keys()
        return table.header


def _put(work: Path, folder: Path, name: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Move the files from ``work`` to ``folder``; a matrix comes last, after what describes it."""
    description = folder / f"{name}.features.yaml"
    content = {**read_entries(description), **entries}
    write_text(description, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    titles = work / f"{name}.titles.tsv"
    if (folder / titles.name).exists():
        titles.unlink(missing_ok=True)
    moved = sorted((p for p in work.iterdir() if p.is_file()), key=lambda p: p.suffix == ".npy")
    add_to_record(folder, name, moved)
    for path in moved:
        os.replace(path, folder / path.name)
