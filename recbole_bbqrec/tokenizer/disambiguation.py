"""TIGER's last token: a code that only separates items that share all other codes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.tokenizer.base import Tokenization


def disambiguation_codes(codes: Tensor) -> Tensor:
    """Rank each item by id among those with its tuple: codes [n_items, L, M] -> [n_items].

    The rank is 0 for an item with a unique tuple and for row 0 ([PAD]), which does not count.
    """
    ranks = codes.new_zeros(len(codes))
    if len(codes) <= 1:
        return ranks
    _, group, counts = torch.unique(
        codes[1:].flatten(1), dim=0, return_inverse=True, return_counts=True
    )
    order = torch.argsort(group, stable=True)  # by group, then by ascending id
    first = counts.cumsum(0) - counts  # [groups] where each group starts
    place = torch.arange(len(order), device=codes.device)
    ranks[order + 1] = place - first[group[order]]
    return ranks


def append_disambiguation(result: Tokenization) -> Tokenization:
    """Add a level of :func:`disambiguation_codes` to the tokenization of one signal.

    The new level's codebook is zero, so the vectors stay the same. Raises UserError when more
    items share a tuple than a codebook has codes.
    """
    if result.codes.shape[2] != 1:
        raise ValueError(f"expected codes of one signal, got {result.codes.shape[2]}")
    ranks = disambiguation_codes(result.codes)
    largest, size = int(ranks.max()) + 1, result.codebooks.shape[2]
    if largest > size:
        raise UserError(
            f"{largest} items share one semantic ID, but the disambiguation token has only "
            f"{size} codes. Enlarge `codebook_size` or `codebook_levels`, train the tokenizer "
            "longer, or set `disambiguation: reassign`."
        )
    return replace(
        result,
        codes=torch.cat([result.codes, ranks.view(-1, 1, 1)], dim=1),
        codebooks=torch.cat([result.codebooks, torch.zeros_like(result.codebooks[:, :1])], dim=1),
    )
