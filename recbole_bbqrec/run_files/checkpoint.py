"""Checkpoints that are data: written atomically, read with ``weights_only=True``.

RecBole's own checkpoints pickle a Config object and cannot be loaded safely. Ours hold tensors,
numbers, texts and containers of them; the configuration is YAML text.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError

FORMAT = 1  # raised when older checkpoints can no longer be read


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Write ``state`` (tensors and plain values only) to ``path`` atomically."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save_checkpoint`.

    Raises:
        UserError: the file is missing, truncated, not one of our checkpoints, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}. Check the path, or train first.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The checkpoint {path} ({path.stat().st_size} bytes) cannot be read: it is truncated, "
            f"damaged, or not written by recbole_bbqrec. Use another one or train again. "
            f"[{type(error).__name__}]"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(
            f"The file {path} is not a checkpoint of recbole_bbqrec (format {FORMAT} expected)."
        )
    return state


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
    return state


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load ``weights``, read from the checkpoint at ``path``, into ``model``.

    Raises:
        UserError: names or shapes differ from the model's, which is then unchanged.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
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
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
