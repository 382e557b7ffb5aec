"""Names and order of a generator's parameters in checkpoints.

Checkpoints name the parameters as the first release did, so that a file outlives the network's
present layout and both old and new ones load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

#: Start of a name in a checkpoint, in the checkpoint's order -> start of the name in the network.
_NAMES = {
    "encoder_level": "encoder.level",
    "decoder_level": "decoder.level",
    "head_bias": "decoder.head.bias",
    "head_weight": "decoder.head.weight",
    "repeat": "item_head.repeat.logits",
    "tokens.": "encoder.tokens.",
    "position.": "encoder.position.",
    "items.": "encoder.items.",
    "features.": "encoder.features.",
    "encoder.": "encoder.layers.",
    "decoder.": "decoder.layers.",
    "start.": "decoder.start.",
    "encoder_input_norm.": "encoder.input_norm.",
    "decoder_input_norm.": "decoder.input_norm.",
    "encoder_norm.": "encoder.norm.",
    "decoder_norm.": "decoder.norm.",
    "content.": "item_head.content.",
}
_PLACES = {own: place for place, own in enumerate(_NAMES.values())}


def _pattern(starts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(start) for start in starts))


_STORED, _OWN = _pattern(_NAMES), _pattern(_NAMES.values())
_STORED_OF = {own: stored for stored, own in _NAMES.items()}


def register(generator: nn.Module) -> None:
    """Make ``state_dict`` of ``generator`` give the names of checkpoints, and loading take them."""
    generator._register_state_dict_hook(_to_stored)
    generator._register_load_state_dict_pre_hook(_to_own)


def in_order(
    parameters: Iterable[tuple[str, nn.Parameter]], prefix: str = ""
) -> Iterator[tuple[str, nn.Parameter]]:
    """Sort (name, parameter) pairs of a generator by their place in a checkpoint."""
    return iter(sorted(parameters, key=lambda pair: _place(pair[0], prefix)))


def _place(name: str, prefix: str = "") -> int:
    start = _OWN.match(name, len(prefix))
    return len(_PLACES) if start is None else _PLACES[start[0]]


def _to_stored(_: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
    """Rename the entries under ``prefix``, in place, as a state-dict hook."""
    names = sorted(
        (name for name in state if name.startswith(prefix)), key=lambda name: _place(name, prefix)
    )
    for name in names:
        tensor, own = state.pop(name), name[len(prefix) :]
        state[prefix + _OWN.sub(lambda start: _STORED_OF[start[0]], own, count=1)] = tensor


def _to_own(state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename the entries under ``prefix`` back, in place, before they are loaded."""
    for name in [name for name in state if name.startswith(prefix)]:
        start = _STORED.match(name, len(prefix))
        if start is not None:
            own = prefix + _NAMES[start[0]] + name[start.end() :]
            state[own] = state.pop(name)
