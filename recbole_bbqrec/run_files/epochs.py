"""``epochs.jsonl``: the measurements of a run, one JSON object per finished epoch and phase.

``resume.pth`` holds the lines too, and the file is rewritten from them after every epoch: a
resumed run leaves the same file as an uninterrupted one.

Keys of a line: ``phase`` (``tokenize``, ``generate``, or ``train`` for single-phase models);
``epoch`` from 0; ``terms``, the mean over the epoch's steps of each loss term and, in phase one,
statistics of the codes (``utilisation/...``, ``perplexity/...``, ``dead/...``);
``learning_rate`` of the last step; ``seconds`` (``train``, ``valid``); ``peak_memory_mib`` so far;
and, where the epoch was validated, ``valid`` with its metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.distributed.group import is_main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import read_text

Line = dict[str, Any]


def write_epochs(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Replace the file at ``path`` by ``lines``; a value that is not finite becomes null.

    Of several processes the first alone writes.
    """
    if not is_main():
        return
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(_finite(line), allow_nan=False) + "\n" for line in lines)


def read_epochs(path: Path) -> list[Line]:
    """Return the lines of a run; none if the file does not exist (runs of older versions).

    Raises:
        UserError: a line is not a JSON object with a phase and an epoch.
    """
    if not path.is_file():
        return []
    lines = []
    text_of_file = read_text(path, "lines of JSON", "Remove the file, or train again.")
    for number, text in enumerate(text_of_file.splitlines(), start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not {"phase", "epoch"} <= line.keys():
            raise UserError(
                f"{path}, line {number} is {text[:60]!r}; expected a JSON object with `phase` and "
                "`epoch`, as a run writes it. Remove the file, or train again."
            )
        lines.append(line)
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
