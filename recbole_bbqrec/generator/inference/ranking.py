"""Ranking for many histories: chunks of similar length are encoded and searched."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_bbqrec.generator.inference.allowed import Allowed
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.compiled_weights import compiled
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.nn import parallel
from recbole_bbqrec.runtime import autocast

_USERS_PER_CHUNK = 128  # fastest on a CPU (benchmarks/README.md)


def rank(
    generator: Generator,
    catalogue: Catalogue,
    items: Tensor,
    num_beams: int,
    dtype: torch.dtype,
    rows: int = _USERS_PER_CHUNK,
    allowed: Tensor | None = None,
    excluded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return items int64 [B, K] and their log-probabilities [B, K], as :func:`beam_search` does.

    ``allowed`` bool [n_items] are the items that may be listed (default: all), ``excluded`` int64
    [B, S] those that may not for a user, 0 for none; what is missing of K has the score -inf.

    ``items`` int64 [B, T], right padded with 0; computed in ``dtype``, ``rows`` users at a time.
    Raises ValueError as :func:`encode` and :func:`beam_search` do.
    """

    every = None
    if allowed is not None or excluded is not None:
        every = Allowed.of(catalogue.trie, allowed)

    def search(piece: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        history, without = piece
        # Inference mode spares each operator the bookkeeping of gradients, as long as a small one.
        with torch.inference_mode(), autocast(dtype, items.device):
            memory = encode(generator, catalogue, history)
            own = every if every is None or without is None else every.without(without)
            return beam_search(generator, catalogue, memory, num_beams, allowed=own)

    with autocast(dtype, items.device):
        compiled(generator)  # before threads ask for it, and of ordinary tensors
    lengths = (items != 0).sum(1)
    if len(items) <= rows:
        ids, scores = search((_trimmed(items, lengths), excluded))
        return ids.clone(), scores.clone()  # ordinary tensors, as torch.cat() makes below
    order = torch.argsort(lengths, stable=True)
    pieces = [
        (_trimmed(items[chunk], lengths[chunk]), None if excluded is None else excluded[chunk])
        for chunk in order.split(rows)
    ]
    # The longest histories first, so that all threads end together.
    results = parallel.each(search, pieces[::-1], items.device)[::-1]
    back = torch.argsort(order)
    ids, scores = (torch.cat(part)[back] for part in zip(*results))
    return ids, scores


def _trimmed(items: Tensor, lengths: Tensor) -> Tensor:
    """Drop the columns in which every history is padded; an empty history is refused later."""
    return items[:, : max(int(lengths.max()), 1)]
