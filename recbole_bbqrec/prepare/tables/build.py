"""Prepare a data set from the user's tables and feature matrices.

Writes the same files as :mod:`recbole_bbqrec.prepare.folder`: ``NAME.inter`` (``timestamp`` is the
event's position in its user's sequence, ``unix_time`` its real time, if known),
``NAME.<modality>.npy`` with ``NAME.<modality>.items.txt``, ``NAME.features.yaml``,
``NAME.titles.tsv`` and ``NAME.item_table.parquet``, in a folder that appears once it is complete.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import (
    Former,
    check_target,
    describe_matrix,
    rebuilding,
    write_description,
    write_lines,
)
from recbole_bbqrec.prepare.encoders.photos import CLIP, Photos, open_image_encoder
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder
from recbole_bbqrec.prepare.folder import PRECOMPUTED, TFIDF, TFIDF_LABEL, open_text_encoder
from recbole_bbqrec.prepare.item_table import write_item_table
from recbole_bbqrec.prepare.tables.core import write_catalogue
from recbole_bbqrec.prepare.tables.events import EventOptions, Events, read_events
from recbole_bbqrec.prepare.tables.features import FeatureFile, write_features
from recbole_bbqrec.prepare.tables.items import (
    ItemOptions,
    ItemTable,
    item_names,
    read_items,
    shared_item_columns,
)
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.photos import IMAGE, write_photos
from recbole_bbqrec.prepare.tables.query import Table, write_rows
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.prepare.text import TextRecipe, encode_texts, fit_tfidf, recipe
from recbole_bbqrec.prepare.written_files import check_replaceable


@dataclass(frozen=True)
class OwnSource:
    """Input files of a data set.

    Attributes:
        interactions: CSV, TSV or parquet; None where features alone are made.
        items: CSV, TSV, parquet or JSON lines; None for no texts and titles.
        features: matrices, one per modality.
        images: folder of photos, ITEM.jpg; None for none.
    """

    interactions: Path | None
    items: Path | None = None
    features: tuple[FeatureFile, ...] = ()
    images: Path | None = None

    def modalities(self) -> list[str]:
        """Return the modalities that are given as matrices or photos.

        Raises:
            UserError: one is given twice.
        """
        given = [file.modality for file in self.features] + [IMAGE] * (self.images is not None)
        if len(set(given)) < len(given):
            options = "--features" if self.images is None else "--features with --images"
            raise UserError(f"{options} names a modality twice: {given}; expected each once.")
        return given


@dataclass(frozen=True)
class OwnReport:
    """Counts of what was prepared and left out.

    ``short`` holds the numbers of users with 1, 2 and 3 events, ``others`` that of items without.
    """

    name: str
    directory: Path
    users: int
    items: int
    interactions: int
    read: int
    columns: Mapping[str, str]
    modalities: Mapping[str, Mapping[str, Any]]
    cores: tuple[int, int]
    ledger: Ledger
    short: tuple[int, int, int]
    former: Former = Former()
    others: int = 0

    def table(self) -> str:
        """Return the report as text, with the command that trains on the data set."""
        order = "in the order of the file (no column of times; --time_column names one)"
        for role in ("time", "order"):
            if role in self.columns:
                order = f"ordered by {self.columns[role]!r}"
        lines = [
            f"{self.name}: {self.directory}",
            f"  {self.read:,} rows read: user {self.columns['user']!r}, item "
            f"{self.columns['item']!r}, {order}",
            f"  {self.interactions:,} interactions, {self.users:,} users, {self.items:,} items, "
            f"{self.interactions / self.users:.2f} a user",
        ]
        if self.others:
            lines.append(f"  {self.others:,} more items in the catalogue, without an event")
        for modality, entry in self.modalities.items():
            share = 100 * entry["items"] / (self.items + self.others)
            lines.append(
                f"  {modality}: {entry['items']:,} items ({share:.1f} %), {entry['dimension']} "
                f"dimensions, {entry['encoder']}"
            )
        left_out = self.ledger.table()
        lines += ["Left out or incomplete:", left_out] if left_out else ["Nothing was left out."]
        lines += [*self._not_tested(), *self.former.lines(), f"Train: {self.command()}"]
        return "\n".join(lines)

    def _not_tested(self) -> list[str]:
        """Return lines about users with too few events for a part of the split.

        The split uses events that have a history, the second and later ones: the first is trained
        on, the last is for the test, the one before it (if that is not the first) for validation.
        """
        one, two, three = self.short
        lines = []
        if one or two:
            lines.append(
                f"{one + two:,} users have fewer than 3 events: they are not tested, and those "
                f"with 1 event ({one:,}) not trained on either. To leave them out: --user_core 3."
            )
        if three:
            lines.append(f"{three:,} users have 3 events: they are tested, but not in validation.")
        return lines

    def command(self) -> str:
        """Return the command that trains BBQRec, or SASRec without features."""
        options = [f"--data_path={shlex.quote(str(self.directory.parent))}"]
        if self.modalities:
            options.append(f"'--modalities=[{','.join(self.modalities)}]'")
        # RecBole would filter again on loading, by its default of 5.
        for side, core in zip(("user", "item"), self.cores):
            if core != 5:
                options.append(f'--{side}_inter_num_interval="[{core},inf)"')
        model = "BBQRec" if self.modalities else "SASRec"
        start = f"python -m recbole_bbqrec run --model={model} --dataset={self.name}"
        return " ".join([start, *options])


def prepare_own(
    name: str,
    source: OwnSource,
    output_root: str | os.PathLike[str],
    events: EventOptions | None = None,
    items: ItemOptions | None = None,
    text_encoder: str = TFIDF,
    image_encoder: str = CLIP,
    force: bool = False,
) -> OwnReport:
    """Prepare data set ``name`` from the user's files into ``output_root/name``.

    Args:
        name: the data set's name; letters, digits, ``_`` and ``-``.
        source: the files.
        output_root: RecBole's ``data_path``.
        events: columns, filters and cores of the interactions.
        items: columns of the items.
        text_encoder: as in :func:`recbole_bbqrec.prepare.text.encode_texts`; not used when
            ``source.features`` has the modality ``text``.
        image_encoder: of ``source.images``; an image model of transformers, its name or folder.
        force: replace an existing folder and the features that `prepare` made. Other files in it,
            such as your own features, are kept.

    Raises:
        UserError: an option, a file or the encoder is invalid; no event is left; ``strict`` is
            set and the input has faults; the folder cannot be written, or it exists and
            ``force`` is not set. The folder is then unchanged.
    """
    events, interactions = events or EventOptions(), source.interactions
    if interactions is None:
        raise UserError("No table of interactions is given; expected one.")
    given = source.modalities()
    inputs = [file for f in source.features for file in f.paths()]
    inputs += [path for path in (interactions, source.items) if path is not None]
    target = check_target(name, output_root, force, inputs, given)
    encoder: str | SentenceEncoder = TFIDF
    if source.items is not None and "text" not in given:
        encoder = open_own_encoder(text_encoder)  # before the long work
    photos = None
    if source.images is not None:
        photos = Photos.of_folder(source.images), open_image_encoder(image_encoder)
    ledger, items = Ledger(), items or ItemOptions()
    if source.items is not None and not (events.no_header or items.no_header):
        column, items = _shared_columns(interactions, source.items, events, items)
        events = replace(events, item=column)
    sequences = read_events(interactions, events, ledger)
    if events.keep_all_items and source.items is not None:
        known = dict.fromkeys((*sequences.item_names, *sequences.other_items))
        others = [token for token in item_names(source.items, items) if token not in known]
        sequences.other_items += tuple(others)
    with rebuilding(target) as work:
        entries = _write(work, target.path, name, source, sequences, items, encoder, ledger)
        if photos is not None:
            names = sequences.item_names
            catalogue = {token: code for code, token in enumerate(names)}
            chunks = target.path.with_name(f".{name}.{IMAGE}")  # outlive an interruption
            stem = work / f"{name}.{IMAGE}"
            entries[IMAGE] = write_photos(*photos, catalogue, names, stem, chunks, ledger)
        if events.strict:
            ledger.refuse_faults()
        former = write_description(target, work, entries)
    lengths = np.bincount(sequences.users)  # [n_users]
    return OwnReport(
        name=name,
        directory=Path(output_root) / name,  # not what a link to it points at
        users=len(sequences.user_names),
        items=len(sequences.item_names),
        interactions=len(sequences.users),
        read=sequences.read,
        columns=sequences.columns,
        modalities=entries,
        cores=(events.user_core, events.item_core),
        ledger=ledger,
        short=(int((lengths == 1).sum()), int((lengths == 2).sum()), int((lengths == 3).sum())),
        former=former,
        others=len(sequences.other_items),
    )


def _shared_columns(
    interactions: Path, path: Path, events: EventOptions, items: ItemOptions
) -> tuple[str | None, ItemOptions]:
    with Table(interactions, events.separator) as table:
        if table.json_lines:
            table.read_keys()
        return shared_item_columns(table, path, events.item, items)


def _write(
    work: Path,
    target: Path,
    name: str,
    source: OwnSource,
    sequences: Events,
    options: ItemOptions,
    encoder: str | SentenceEncoder,
    ledger: Ledger,
) -> dict[str, dict[str, Any]]:
    """Write all files except features.yaml; return its entries."""
    write_events(work / f"{name}.inter", sequences)
    names = [*sequences.item_names, *sequences.other_items]
    if sequences.other_items:
        write_catalogue(work, name, names, sequences.left_out)
    catalogue = {token: code for code, token in enumerate(names)}
    entries: dict[str, dict[str, Any]] = {}
    row_codes = None
    with TextStore(work) as store:
        titles = work / f"{name}.titles.tsv"
        if source.items is None:
            write_lines(titles, ["item_id\ttitle", *(f"{token}\t" for token in names)])
        else:
            table = read_items(source.items, options, catalogue, titles, store, ledger)
            write_item_table(source.items, options, names, work / name)
            row_codes = table.codes
            given = {file.modality for file in source.features}
            if len(table.texts) and "text" not in given:
                chunks = target.with_name(f".{name}.text")  # outlive an interruption
                stem = work / f"{name}.text"
                replaced = [f"{name}.text.{kind}" for kind in ("npy", "items.txt", "encoder.npz")]
                check_replaceable(target, name, replaced)  # before the long work
                entries["text"] = encode_item_text(stem, chunks, table, names, encoder, ledger)
    for file in source.features:
        stem = work / f"{name}.{file.modality}"
        entries[file.modality] = write_features(file, catalogue, names, row_codes, stem, ledger)
    return entries


def write_events(path: Path, events: Events) -> None:
    """Write ``NAME.inter``, each user's events in the order given."""
    columns = {
        "user_id:token": pd.Categorical.from_codes(events.users, events.user_names),
        "item_id:token": pd.Categorical.from_codes(events.items, events.item_names),
        # RecBole sorts by positions: it rounds times to float32, which merges neighbouring seconds.
        "timestamp:float": events.positions(),
    }
    if events.times is not None:
        whole = bool((events.times == np.floor(events.times)).all())
        columns["unix_time:float"] = events.times.astype(np.int64) if whole else events.times
    write_rows(path, pd.DataFrame(columns, copy=False))


def open_own_encoder(text_encoder: str) -> str | SentenceEncoder:
    """Open the encoder for a table's texts; vectors made before are given as a matrix."""
    if text_encoder == PRECOMPUTED:
        raise UserError(
            f"--text_encoder {PRECOMPUTED} is for --source; with your own tables give the matrix "
            "as --features text=FILE.npy[,ITEMS.txt]."
        )
    return open_text_encoder(text_encoder)


def encode_item_text(
    stem: Path,
    chunks: Path,
    table: ItemTable,
    names: Sequence[str],
    encoder: str | SentenceEncoder,
    ledger: Ledger,
) -> dict[str, Any]:
    """Write ``<stem>.npy`` and its list of items; return the entry of features.yaml."""
    if isinstance(encoder, str):
        vectors, how = fit_tfidf(table.texts)  # float16 [n_texts, dim]
    else:
        vectors = encode_texts(table.texts, encoder, kept=chunks)
        how = TextRecipe(encoder.label)
    replace(how, columns=tuple(table.text_columns)).save(Path(f"{stem}.encoder.npz"))
    kept = np.flatnonzero(vectors.any(axis=1))
    ledger.add("items whose text has no word that the encoder knows", len(vectors) - len(kept))
    matrix = Path(f"{stem}.npy")
    np.save(matrix, vectors[kept], allow_pickle=False)
    write_lines(Path(f"{stem}.items.txt"), (names[table.text_codes[row]] for row in kept))
    return {
        "encoder": TFIDF_LABEL if isinstance(encoder, str) else encoder.label,
        "recipe": recipe(table.text_columns),
        "with_text": len(table.texts),
        **describe_matrix(matrix, len(kept), int(vectors.shape[1])),
    }
