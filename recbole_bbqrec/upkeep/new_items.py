"""Read the items that are to be added to a run: tokens, titles and features."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from recbole_bbqrec.data.features import open_matrix, read_item_list
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.prepare.encoders.sentences import open_encoder
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions, item_tokens, read_items
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.prepare.text import TextRecipe

TEXT = "text"  # the modality that is encoded from columns
_TFIDF = "tfidf"


@dataclass(frozen=True)
class NewItems:
    """Items that a run does not have yet.

    Attributes:
        tokens: raw tokens, all different.
        features: by modality, the items that have it (places in ``tokens``, int64 [n]) and their
            rows float [n, dim].
        titles: by token; items without one are left out.
        known: number of given items that the run has already; they are left as they are.
        table: file with columns of the new items, and how it is read; None for none.
    """

    tokens: tuple[str, ...]
    features: Mapping[str, tuple[np.ndarray, np.ndarray]]
    titles: Mapping[str, str] = field(default_factory=dict)
    known: int = 0
    table: tuple[Path, ItemOptions] | None = None


@dataclass(frozen=True)
class Present:
    """Data that a run has already: folder, name, items, and width of each modality."""

    folder: Path
    name: str
    tokens: frozenset[str]
    widths: Mapping[str, int]


def read_new_items(
    present: Present,
    features: Sequence[FeatureFile] = (),
    items: Path | None = None,
    options: ItemOptions = ItemOptions(),  # noqa: B008 - frozen
    text_encoder: str | None = None,
    required: bool = True,
) -> NewItems:
    """Read the new items of a table ``items``, or of the lists of items beside ``features``.

    Text that is not given as vectors is encoded from the table's text columns, by the recipe that
    ``prepare`` stored with the data set. ``text_encoder`` names or locates the sentence encoder of
    that recipe, where its label does not; without ``options.text`` the columns are the recipe's.
    ``required``: there must be a new item.

    Raises:
        UserError: a file is unreadable or does not fit the run, there is no new item, or an item
            has no feature at all.
    """
    for file in features:
        if file.modality not in present.widths:
            raise UserError(
                f"--features: the run reads no modality {file.modality!r}; it reads "
                f"{', '.join(present.widths) or 'none'}."
                f"{did_you_mean(file.modality, present.widths)}"
            )
    listed = [] if items is None else item_tokens(items, options)
    given = listed or [t for f in features if f.items is not None for t in read_item_list(f.items)]
    distinct = [token for token in dict.fromkeys(given) if token]
    tokens = tuple(token for token in distinct if token not in present.tokens)
    if not tokens and not required:
        return NewItems((), {}, known=len(distinct))
    if not tokens:
        raise UserError(
            f"There is no item to add: the run has all of the {len(distinct):,} items given. Name "
            "new ones by --items, or beside --features."
        )
    place = {token: number for number, token in enumerate(tokens)}
    found = {f.modality: _rows(f, listed, place, present.widths[f.modality]) for f in features}
    titles: dict[str, str] = {}
    if items is not None:
        encoded = TEXT in present.widths and TEXT not in found
        recipe = _recipe_of(present)
        if encoded and not options.text and recipe.is_file():
            options = replace(options, text=TextRecipe.load(recipe).columns)
        titles, places, texts, columns = _table(items, options, place)
        if encoded:
            found[TEXT] = _encoded(present, places, texts, columns, text_encoder)
    having = np.zeros(len(tokens), dtype=bool)
    for places, _ in found.values():
        having[places] = True
    if not having.all():
        raise UserError(
            f"{int((~having).sum()):,} of the {len(tokens):,} new items have no feature, for "
            f"example {tokens[int(having.argmin())]!r}; a new item is placed by its features "
            f"alone. Give one of {', '.join(present.widths)} for each, or leave these items out."
        )
    table = None if items is None else (items, options)
    return NewItems(tokens, found, titles, len(distinct) - len(tokens), table)


def _rows(
    file: FeatureFile, listed: Sequence[str], place: Mapping[str, int], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return places int64 [n] of the new items in a matrix, and their rows [n, width]."""
    matrix = open_matrix(file.matrix)
    tokens = list(listed) if file.items is None else read_item_list(file.items)
    if not tokens:
        raise UserError(
            f"--features {file.modality}={file.matrix}: which item is each row of? Name a list "
            f"({file.modality}={file.matrix},ITEMS.txt), or give --items, whose order they follow."
        )
    if len(tokens) != len(matrix):
        raise UserError(
            f"{file.matrix} has {len(matrix):,} rows, but {file.items or 'the items file'} lists "
            f"{len(tokens):,} items; expected one row an item. Make both again together."
        )
    if matrix.shape[1] != width:
        raise UserError(
            f"{file.matrix} has {matrix.shape[1]} columns; the run's {file.modality} features have "
            f"{width}. Encode the items as the run's were encoded."
        )
    used = [row for row, token in enumerate(tokens) if token in place]
    rows = np.array(matrix[used], dtype=np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = used[int(finite.argmin())]
        raise UserError(
            f"{file.matrix}, row {row} (item {tokens[row]!r}) holds a NaN or an infinity; expected "
            "finite numbers. Encode that item again."
        )
    kept = rows.any(axis=1)  # a row of zeros is no feature, as in `prepare`
    places = np.array([place[tokens[row]] for row in used], dtype=np.int64)
    return places[kept], rows[kept]


def _table(
    path: Path, options: ItemOptions, place: Mapping[str, int]
) -> tuple[dict[str, str], np.ndarray, list[str], tuple[str, ...]]:
    """Return titles, and the places, texts and text columns of the new items in a table."""
    with tempfile.TemporaryDirectory(prefix="recbole_bbqrec-") as folder:
        titles = Path(folder) / "titles.tsv"
        with TextStore(Path(folder)) as store:
            table = read_items(path, options, place, titles, store, Ledger())
            texts = list(table.texts)
        read = {token: title for token, title in read_titles(titles).items() if title}
    return read, table.text_codes, texts, table.text_columns


def _recipe_of(present: Present) -> Path:
    """Return the file that says how the run's texts were encoded; there may be none."""
    return present.folder / f"{present.name}.{TEXT}.encoder.npz"


def _encoded(
    present: Present,
    places: np.ndarray,
    texts: Sequence[str],
    columns: Sequence[str],
    text_encoder: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Encode texts by the data set's stored recipe: places int64 [n], vectors [n, dim]."""
    path = _recipe_of(present)
    give = f"Give the vectors: --features={TEXT}=FILE.npy,ITEMS.txt."
    if not path.is_file():
        raise UserError(
            f"The run's data have no {path.name}: they were prepared by an earlier version, or "
            f"their text features were given, so new texts cannot be encoded alike. {give}"
        )
    recipe = TextRecipe.load(path)
    if tuple(columns) != recipe.columns:
        raise UserError(
            f"The texts would be made of {', '.join(columns) or 'no column'}; those of the run "
            f"were made of {', '.join(recipe.columns)}. Give --text_columns="
            f"{','.join(recipe.columns)}. {give}"
        )
    if recipe.encoder == _TFIDF:
        vectors = recipe.encode(texts)
    else:
        encoder = open_encoder(text_encoder or recipe.encoder)
        if encoder.label != recipe.encoder:
            raise UserError(
                f"--text_encoder is {encoder.label}; the run's texts were encoded by "
                f"{recipe.encoder}. Name that. {give}"
            )
        vectors = encoder.encode(texts)
    width = present.widths[TEXT]
    if vectors.shape[1] != width:
        raise UserError(f"{path}: vectors of {vectors.shape[1]} columns, not {width}. {give}")
    kept = vectors.any(axis=1)
    return places[kept], vectors[kept]
