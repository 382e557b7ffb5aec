"""The reference: Hugging Face T5 on semantic IDs, as the public TIGER and LETTER codes use it.

One padded row per prefix; one T5 token per code; decoding restricted by a Python callback over a
dictionary trie. Written from the published recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from common import CODES, LEVELS, MAX_ITEMS
from torch import Tensor

PAD, EOS, FIRST_CODE = 0, 1, 2
#: Layers (encoder, decoder), heads, width of a head, feed-forward width; d_model is 128 in both.
SHAPES = {"2+2, 4x32, ff 512": (2, 4, 32, 512), "4+4, 6x64, ff 1024": (4, 6, 64, 1024)}


def build(shape: str) -> Any:
    """A T5 of one of ``SHAPES`` with a token per (level, code)."""
    from transformers import T5Config, T5ForConditionalGeneration

    layers, heads, width, inner = SHAPES[shape]
    config = T5Config(
        vocab_size=FIRST_CODE + LEVELS * CODES,
        d_model=128,
        d_kv=width,
        d_ff=inner,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        dropout_rate=0.1,
        feed_forward_proj="relu",
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    return T5ForConditionalGeneration(config)


def tokens(codes: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Histories int64 [B, T] -> token ids and mask, both [B, 20 * L + 1], padded on the right.

    ``codes`` int64 [n_items, L, 1].
    """
    rows = codes.new_full((len(items), MAX_ITEMS * LEVELS + 1), PAD)
    flat = _ids(codes, items).flatten(1) * (items > 0).repeat_interleave(LEVELS, 1)
    rows[:, : flat.shape[1]] = flat
    lengths = (items > 0).sum(1) * LEVELS
    rows[torch.arange(len(items)), lengths] = EOS
    return rows, (rows != PAD).long()


def labels(codes: Tensor, targets: Tensor) -> Tensor:
    """Items int64 [B] -> token ids [B, L + 1], ending in EOS."""
    ids = _ids(codes, targets)
    return torch.cat([ids, torch.full((len(ids), 1), EOS)], dim=1)


def _ids(codes: Tensor, items: Tensor) -> Tensor:
    return codes[items, :, 0] + FIRST_CODE + torch.arange(LEVELS) * CODES  # [..., L]


class DictTrie:
    """Allowed next tokens of every prefix, as ``prefix_allowed_tokens_fn`` wants them."""

    def __init__(self, codes: Tensor) -> None:
        children: dict[tuple[int, ...], set[int]] = {}
        for path in _ids(codes, torch.arange(1, len(codes))).tolist():
            for level, token in enumerate(path):
                children.setdefault(tuple(path[:level]), set()).add(token)
        self.children = {prefix: sorted(found) for prefix, found in children.items()}

    def __call__(self, batch_id: int, sentence: Tensor) -> list[int]:
        return self.children.get(tuple(sentence.tolist()[1:]), [EOS])


def decode(model: Any, trie: DictTrie, rows: Tensor, mask: Tensor, beams: int, k: int) -> Tensor:
    """Token ids of the k best items of each row; an item ends in EOS, as it was trained."""
    with torch.no_grad():
        return model.generate(
            input_ids=rows,
            attention_mask=mask,
            max_new_tokens=LEVELS + 1,
            num_beams=beams,
            num_return_sequences=k,
            prefix_allowed_tokens_fn=trie,
            early_stopping=True,
        )
