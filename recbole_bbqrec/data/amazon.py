"""Prepare a data set: from source files to RecBole's atomic file and aligned features.

Reads the layout described in :mod:`recbole_bbqrec.data.source` and writes ``<root>/<NAME>/``:

* ``NAME.inter``: user, item and time; time is the event's position in the user's sequence;
* ``NAME.text.npy``, ``NAME.text.items.txt``: text vectors of the items that have text;
* ``NAME.image.npy``, ``NAME.image.items.txt``: vectors made of image labels, where there are any;
* ``NAME.features.yaml``: encoder, dimension, recipe and checksum of each modality;
* ``NAME.titles.tsv``: a readable title per item, for reports.

Everything is built in a folder beside the target, which it replaces only once it is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_bbqrec.data import source as src
from recbole_bbqrec.data.features import file_sha256
from recbole_bbqrec.data.text import RECIPE, clean, encode_labels, encode_texts, item_text
from recbole_bbqrec.errors import UserError

PRECOMPUTED = "precomputed"
_PRECOMPUTED_ENCODERS = {"text_minilm.npy": "all-MiniLM-L6-v2 (not the paper's sentence-T5)"}

# Table 1 of the paper: users, items, interactions, with image, with text, average length. Its
# count for Toys is 169,597 interactions; the public 5-core file has 167,597.
PAPER_TABLE1 = {
    "Beauty": (22363, 12101, 198502, 12009, 12094, 8.88),
    "Sports": (35598, 18357, 296337, 18177, 18317, 8.32),
    "Clothing": (39387, 23033, 278677, 22879, 23032, 7.08),
    "Toys": (19412, 11924, 169597, 11838, 11890, 8.63),
}


@dataclass(frozen=True)
class PreparedReport:
    """Counts of a prepared data set, over the items that occur in an interaction.

    ``with_text`` counts items with any of title, description, brand and categories;
    ``with_title`` those with a title or description, which is what the paper counts as text.
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

    @property
    def average_length(self) -> float:
        """Interactions per user."""
        return self.interactions / self.users

    def table(self) -> str:
        """The data set's row of Table 1, and the paper's row below it where there is one."""
        header = ("", "users", "items", "interactions", "with image", "with text", "avg length")
        row = (self.users, self.items, self.interactions, self.with_image, self.with_text)
        rows = [("prepared", row, self.average_length)]
        if self.name in PAPER_TABLE1:
            paper = PAPER_TABLE1[self.name]
            rows.append(("paper", paper[:5], paper[5]))
        lines = [header] + [
            (label, *(f"{n:,}" for n in counts), f"{mean:.2f}") for label, counts, mean in rows
        ]
        text = "\n".join("".join(cell.rjust(13) for cell in line) for line in lines)
        return f"{self.name}: {self.directory}\n{text}\n" + (
            f"Items with a title or description: {self.with_title:,}. "
            f"Text encoder: {self.text_encoder}."
        )


def prepare_from_source(
    name: str,
    source: str | os.PathLike[str],
    output_root: str | os.PathLike[str],
    text_encoder: str = "tfidf",
    force: bool = False,
) -> PreparedReport:
    """Prepare data set ``name`` from the folder ``source`` into ``output_root/name``.

    Args:
        name: the data set's name; letters, digits, ``_`` and ``-``.
        source: folder with ``interactions.tsv.gz`` and ``items.jsonl.gz``.
        output_root: RecBole's ``data_path``.
        text_encoder: ``tfidf``, ``precomputed`` (the source's ``text_*.npy``), or a
            sentence-transformers model.
        force: replace an existing folder. Files in it that the preparation does not make, such
            as features of your own, are kept.

    Raises:
        UserError: the name, a source file or the encoder is not as expected, or the target
            exists and ``force`` is not set. The target is then as it was.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"Data set name {name!r}; expected letters, digits, '_' and '-'.")
    target = Path(output_root) / name
    if target.exists() and not force:
        raise UserError(f"{target} already exists; use --force to replace it.")
    if target.is_symlink():
        target = target.resolve()  # replace the folder, not the link to it
    folder = Path(source)
    items = src.read_items(folder)
    events = src.read_interactions(folder, items)
    used = {event.item for event in events}
    catalogue = {token: item for token, item in items.items() if token in used}

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    try:
        work.chmod(0o777 & ~_umask())  # mkdtemp's folder is private to its owner
        _write_interactions(work / f"{name}.inter", events)
        _write_titles(work / f"{name}.titles.tsv", catalogue)
        text = _prepare_text(work, name, folder, items, catalogue, text_encoder)
        image = _prepare_image(work, name, folder, items, catalogue)
        described = {"text": text, **({"image": image} if image else {})}
        _carry_over(target, work, name, described)
        _replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    texts = (item_text(item) for item in catalogue.values())
    return PreparedReport(
        name=name,
        directory=target,
        users=len({event.user for event in events}),
        items=len(catalogue),
        interactions=len(events),
        with_image=image["items"] if image else 0,
        with_text=sum(1 for line in texts if line),
        with_title=sum(1 for i in catalogue.values() if i.get("title") or i.get("description")),
        text_encoder=text["encoder"],
    )


def _write_interactions(path: Path, events: list[src.Interaction]) -> None:
    # Order, not date, is what the source has; float32, RecBole's type for it, is exact here.
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{event.user}\t{event.item}\t{event.order}" for event in events]
    _write_lines(path, lines)


def _write_titles(path: Path, catalogue: dict[str, dict[str, Any]]) -> None:
    lines = ["item_id\ttitle"]
    for token, item in catalogue.items():
        title = item.get("title")
        # Without a title, the rest of the text is better than nothing for a reader.
        readable = clean(title) if isinstance(title, str) else ""
        lines.append(f"{token}\t{readable or item_text(item)}")
    _write_lines(path, lines)


def _prepare_text(
    work: Path,
    name: str,
    folder: Path,
    items: dict[str, dict[str, Any]],
    catalogue: dict[str, dict[str, Any]],
    encoder: str,
) -> dict[str, Any]:
    """Write the text modality of the catalogue and return its metadata."""
    texts = {token: item_text(item) for token, item in catalogue.items()}
    tokens = [token for token, line in texts.items() if line]
    if encoder == PRECOMPUTED:
        file, matrix = src.read_precomputed_text(folder, len(items))
        row_of = {token: row for row, token in enumerate(items)}
        with np.errstate(over="ignore"):
            vectors = matrix[[row_of[token] for token in tokens]].astype(np.float16)
        label, recipe = _PRECOMPUTED_ENCODERS.get(file, file), f"read from {file}"
    else:
        vectors = encode_texts([texts[token] for token in tokens], encoder)
        label, recipe = encoder, RECIPE
        if encoder == "tfidf":
            label = "TF-IDF of words and word pairs, truncated SVD (not the paper's sentence-T5)"
    metadata = {"encoder": label, "recipe": recipe, "with_text": len(tokens)}
    return {**metadata, **_write_modality(work, f"{name}.text", tokens, vectors)}


def _prepare_image(
    work: Path,
    name: str,
    folder: Path,
    items: dict[str, dict[str, Any]],
    catalogue: dict[str, dict[str, Any]],
) -> dict[str, Any] | None:
    """Write the image modality and return its metadata; None where the source has no labels."""
    labelled = src.read_image_labels(folder, items)
    if labelled is None:
        return None
    rows = [row for row, token in enumerate(labelled[0]) if token in catalogue]
    tokens, counts = [labelled[0][row] for row in rows], labelled[1][rows]
    if not counts.any():
        raise UserError(
            f"{folder / 'image_labels_multihot.npz'} gives no label to any item that occurs in "
            "interactions.tsv.gz; expected labels. Correct the file or remove it."
        )
    metadata = {
        "encoder": "Rekognition image labels, a stand-in for CNN features",
        "recipe": f"TF-IDF of {counts.shape[1]} labels, truncated SVD, rows of unit length",
    }
    return {**metadata, **_write_modality(work, f"{name}.image", tokens, encode_labels(counts))}


def _write_modality(
    work: Path, stem: str, tokens: list[str], vectors: np.ndarray
) -> dict[str, Any]:
    """Write vectors float16 [rows, dim] and their tokens, without rows that are all zero."""
    kept = np.flatnonzero(vectors.any(axis=1))
    if not np.isfinite(vectors).all():
        raise UserError(f"{stem}: a feature exceeds the range of float16; scale the features down.")
    np.save(work / f"{stem}.npy", vectors[kept], allow_pickle=False)
    _write_lines(work / f"{stem}.items.txt", [tokens[row] for row in kept])
    return {
        "dimension": int(vectors.shape[1]),
        "items": int(kept.size),
        "sha256": file_sha256(work / f"{stem}.npy"),
    }


def _carry_over(target: Path, work: Path, name: str, described: dict[str, Any]) -> None:
    """Write features.yaml; keep the old folder's files, and their entries, that are not remade."""
    yaml_path = target / f"{name}.features.yaml"
    if yaml_path.is_file():
        try:
            old = yaml.safe_load(yaml_path.read_text(encoding="utf-8")) or {}
            described = {**old, **described}
        except (yaml.YAMLError, TypeError) as error:
            raise UserError(f"{yaml_path} is not a YAML mapping ({error}); remove it.") from error
    content = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    (work / f"{name}.features.yaml").write_text(content, encoding="utf-8")
    if target.is_dir():
        for path in target.iterdir():
            if not (work / path.name).exists():
                keep = shutil.copytree if path.is_dir() else shutil.copy2
                keep(path, work / path.name)


def _replace(work: Path, target: Path) -> None:
    """Put ``work`` in the place of ``target``; a failure leaves ``target`` as it was."""
    if not target.exists():
        os.rename(work, target)
        return
    aside = work.with_name(work.name + ".old")
    os.rename(target, aside)
    try:
        os.rename(work, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
