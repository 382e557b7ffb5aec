"""Text of items from RecBole's own atomic files, and the data set ml-100k that RecBole installs.

A folder with RecBole's files lacks only text vectors to be multi-modal. They are made of columns of
``NAME.item`` and written beside the other files, which stay as they are. Of ml-100k RecBole's
package has all files; they are copied to the folder of the data sets, never changed in place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import recbole
import yaml

from recbole_bbqrec.atomic import folder_beside
from recbole_bbqrec.atomic import write_text as write_file
from recbole_bbqrec.data.loaded_columns import header_columns
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.prepare import atomic_files as prepared
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder
from recbole_bbqrec.prepare.folder import TFIDF, open_text_encoder, write_text
from recbole_bbqrec.prepare.on_demand import ML_100K
from recbole_bbqrec.prepare.written_files import read_entries

ML_100K_COLUMNS = ("movie_title", "class")  # class: the genres
_INSTALLED = Path(recbole.__file__).parent / "dataset_example" / ML_100K
_COPIED = ("inter", "item", "user")
_SOURCE = "text_columns"  # key of features.yaml: columns of NAME.item that the text was made of


def make_ml_100k(
    output_root: str | os.PathLike[str],
    text_encoder: str = TFIDF,
    force: bool = False,
    columns: Sequence[str] = ML_100K_COLUMNS,
) -> Path:
    """Make the data set ml-100k in ``output_root`` of RecBole's own files; return its folder.

    Raises:
        UserError: this installation of RecBole lacks the files, the folder exists and ``force`` is
            not set, or the encoder cannot be loaded.
    """
    sources = {kind: _INSTALLED / f"{ML_100K}.{kind}" for kind in _COPIED}
    for path in sources.values():
        if not path.is_file():
            raise UserError(
                f"{path} is missing; data set {ML_100K} is made of the files that RecBole 1.2.1 "
                "installs. Install it again: pip install --no-deps --force-reinstall recbole==1.2.1"
            )
    target = prepared.check_target(ML_100K, output_root, force, sources.values(), ("text",))
    encoder = open_text_encoder(text_encoder)
    items = _read_items(sources["item"], columns, "\t", "utf-8")
    with prepared.rebuilding(target) as work:
        for path in sources.values():
            shutil.copyfile(path, work / path.name)
        entry = _write(work, target.path, ML_100K, items, columns, encoder)
        prepared.write_description(target, work, {"text": entry})
    return target.path


def add_item_text(
    folder: Path, name: str, columns: Sequence[str], separator: str = "\t", encoding: str = "utf-8"
) -> bool:
    """Make text vectors of ``columns`` of ``NAME.item``, unless ``folder`` has text vectors.

    Files that are there stay as they are; titles are written only where there are none.

    Returns:
        True if the vectors were made.

    Raises:
        UserError: there are vectors made of other columns, ``NAME.item`` is missing or unreadable,
            or lacks a column.
    """
    matrix, tokens = folder / f"{name}.text.npy", folder / f"{name}.text.items.txt"
    description = folder / f"{name}.features.yaml"
    entries = read_entries(description)
    if matrix.exists():
        made_of = (entries.get("text") or {}).get(_SOURCE)
        if made_of not in (None, list(columns)):
            raise UserError(
                f"Option `text_columns` is {list(columns)}; {matrix} was made of {made_of}. Give "
                f"these, or remove {matrix.name} and {tokens.name} to make them anew."
            )
        return False
    if tokens.exists():
        raise UserError(
            f"{tokens} is there without {matrix.name}; a file made by others is never replaced. "
            "Remove it, or complete the two."
        )
    items = _read_items(folder / f"{name}.item", columns, separator, encoding)
    with folder_beside(folder / name) as work:
        entry = _write(work, folder, name, items, columns, TFIDF)
        content = yaml.safe_dump({**entries, "text": entry}, sort_keys=False, allow_unicode=True)
        write_file(description, content)
        titles = f"{name}.titles.tsv"
        if not (folder / titles).exists():
            os.replace(work / titles, folder / titles)
        # The matrix comes last: where it is, the rest is complete.
        for path in (tokens, matrix):
            os.replace(work / path.name, path)
    return True


def _read_items(
    path: Path, columns: Sequence[str], separator: str, encoding: str | None
) -> dict[str, dict[str, Any]]:
    """Read ``columns`` of the items by raw token; the first column is the item's."""
    if not path.is_file():
        raise UserError(
            f"Option `text_columns` is {list(columns)}; {path} is not there. It needs RecBole's "
            "file of the items, with the columns as in its header, such as title:token_seq."
        )
    header = header_columns(path, separator, encoding)
    if header is None:
        raise UserError(f"{path} cannot be read as {encoding or 'text'}; set `encoding`.")
    for column in columns:
        if column not in header:
            hint = did_you_mean(column, list(header))
            raise UserError(
                f"Option `text_columns` has `{column}`; {path} has {', '.join(header)}.{hint}"
            )
    item = next(iter(header))
    words = [header[name] for name in dict.fromkeys([item, *columns])]
    options: dict[str, Any] = {"sep": separator, "usecols": words, "encoding": encoding}
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); expected RecBole's format.") from error
    texts = {name: rows[header[name]].tolist() for name in columns}
    return {
        token.strip(): {name: values[row] for name, values in texts.items()}
        for row, token in enumerate(rows[header[item]].tolist())
    }


def _write(
    work: Path,
    folder: Path,
    name: str,
    items: dict[str, dict[str, Any]],
    columns: Sequence[str],
    encoder: str | SentenceEncoder,
) -> dict[str, Any]:
    """Write text vectors and titles to ``work``; return the entry of features.yaml."""
    titles = {token: {"title": item[columns[0]]} for token, item in items.items()}
    prepared.write_titles(work / f"{name}.titles.tsv", titles)
    entry = write_text(work, folder, name, items, encoder, tuple(columns))
    return {**entry, _SOURCE: list(columns)}
