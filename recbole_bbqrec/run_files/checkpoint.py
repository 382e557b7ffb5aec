"""Checkpoints that are data: written atomically, read with ``weights_only=True``.

A checkpoint is a zip file with a CRC-32 of every entry, which torch writes but does not compare:
:func:`load_checkpoint` does. RecBole's own checkpoints pickle a Config object and cannot be loaded
safely. Ours hold tensors, numbers, texts and containers of them; the configuration is YAML text.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.distributed.group import from_main, is_main, running
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import check_archive, reading

FORMAT = 1  # raised when older checkpoints can no longer be read
#: Types of the values that are compared before anything else is read.
_TYPES = {
    "format": int, "config": str, "model": str, "split_hash": str, "phase": str, "state_dict": dict,
}  # fmt: skip
_KIND = "a checkpoint of recbole_bbqrec"
_REMEDY = "Use another one, or train again."


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Write ``state`` (tensors and plain values only) to ``path`` atomically.

    Of several processes the first alone writes.

    Raises:
        KeyboardInterrupt: also where torch turns it into an error of its own.
    """
    if not is_main():
        return
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        guarded: Any = _Guarded(file)
        try:
            torch.save({"format": FORMAT, **state}, guarded)
        except Exception as error:
            raise guarded.failure or _interrupt_in(error) or error from error


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save_checkpoint`.

    Of several processes the first reads it, and the others get a copy on the CPU.

    Raises:
        UserError: the file is missing, damaged, not one of our checkpoints, or of another format.
    """
    device = "cpu" if running() else device
    return from_main(lambda: _load(Path(path), device))


def _load(path: Path, device: torch.device | str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}. Check the path, or train first.")
    with reading_checkpoint(path):
        check_archive(path)
        state = torch.load(path, map_location=device, weights_only=True)
    # A tensor in the place of a number or text cannot even be compared.
    known = isinstance(state, dict) and isinstance(state.get("format"), int)
    if not known or state["format"] != FORMAT:
        raise UserError(
            f"The file {path} is not a checkpoint of recbole_bbqrec (format {FORMAT} expected)."
        )
    wrong = [key for key, kind in _TYPES.items() if not isinstance(state.get(key, kind()), kind)]
    if wrong:
        raise UserError(
            f"The checkpoint {path} holds a {type(state[wrong[0]]).__name__} as `{wrong[0]}`; "
            f"expected {_TYPES[wrong[0]].__name__}. {_REMEDY}"
        )
    return state


def reading_checkpoint(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Turn what a block raises over the content of a checkpoint into an error that names it."""
    return reading(path, _KIND, _REMEDY)


def require_keys(state: dict[str, Any], keys: Collection[str], path: str | Path) -> None:
    """Raise a UserError if the checkpoint read from ``path`` lacks one of ``keys``."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise UserError(f"The checkpoint {path} has no `{missing[0]}`. {_REMEDY}")


def _interrupt_in(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interrupt that ``error`` followed: its end of an archive fails in torch."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause


class _Guarded:
    """A binary file that keeps the failure of a write: torch reports it as a wrong position."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_model_file(path: str | Path) -> dict[str, Any]:
    """Read the saved model of a run, as :func:`load_checkpoint` does.

    Raises:
        UserError: also where the file is another checkpoint of a run.
    """
    state = load_checkpoint(path)
    if not {"config", "state_dict"} <= state.keys():
        raise UserError(
            f"The file {path} is not the saved model of a run; expected "
            "saved/<Model>-<time>.pth or the run's directory."
        )
    with reading_checkpoint(path):
        features = state.get("features") or {}
        state["features"] = {m: {"fingerprint": str(f["fingerprint"])} for m, f in features.items()}
        if not isinstance(state.get("split_hash", ""), str):
            raise TypeError("split_hash is no text")
        if state.get("other_parameter") is not None:
            state["other_parameter"] = {**state["other_parameter"]}
    return state


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load ``weights``, read from the checkpoint at ``path``, into ``model``.

    Raises:
        UserError: names or shapes differ from the model's, which is then unchanged.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with reading_checkpoint(path):
        given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != given:
        name = min({name for name, _ in shapes.items() ^ given.items()})
        raise UserError(
            f"The weights in {path} do not fit this model: {name} is {given.get(name, 'absent')} "
            f"there and {shapes.get(name, 'absent')} here. They were trained with other options or "
            "by another version of recbole_bbqrec: use those, or train again."
        )
    model.load_state_dict(weights)


def random_state() -> dict[str, Any]:
    """Return the state of every random number generator of a run, as plain data."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a state that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        count = torch.cuda.device_count()  # a resumed run may have fewer
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"][:count]])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
