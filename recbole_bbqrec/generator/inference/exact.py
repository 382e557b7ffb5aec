"""Scores of every item, with which the beam is compared.

Teacher forcing of every prefix in the trie, level by level, without the beam's caches or
pruning. The cost is that of a beam as wide as the catalogue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.inference import scoring
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.network.layers import KeysValues
from recbole_bbqrec.generator.network.seq2seq import Generator


@torch.no_grad()
def exact_scores(
    generator: Generator, catalogue: Catalogue, memory: Memory, chunk: int = 512
) -> Tensor:
    """Score every item by log-probability: [B, n_items], -inf for [PAD] and items not in the trie.

    ``chunk`` prefixes are decoded at a time for each user. Raises ValueError when the generator
    is in training mode.
    """
    if generator.training:
        raise ValueError("exact scoring needs the generator in evaluation mode: call train(False)")
    trie, loss = catalogue.trie, generator.config.generation_loss
    keys_values = generator.decoder.keys_values(memory)
    paths = torch.empty(1, 0, trie.n_signals, dtype=torch.int64, device=memory.lengths.device)
    hidden = _decode(generator, memory, keys_values, paths)[:, 0]  # [B, d]
    items = generator.item_head.at_end(catalogue, memory, generator.encoder.items)
    logits = generator.logits(memory, hidden, 0)
    if items is None:
        scores = scoring.root_scores(logits, trie, loss)  # [B, n_0]
    else:
        scores = scoring.headed_root_scores(logits, items).t()
    paths = trie.codes[0].unsqueeze(1)  # [n_0, 1, M]
    for level in range(1, trie.levels):
        parts = []
        for parents in torch.arange(len(paths), device=paths.device).split(chunk):
            hidden = _decode(generator, memory, keys_values, paths[parents])  # [B, P, d]
            first, counts = (part.repeat(len(hidden)) for part in trie.children(level, parents))
            owner, child = ragged.expand(first, counts)  # [B * E]
            logits = generator.logits(memory, hidden, level).flatten(0, 1)
            masses = None if items is None else items.masses(level, owner // len(parents), child)
            gain = scoring.child_scores(logits, trie, level, owner, child, loss, masses)
            parts.append((scores[:, parents].flatten()[owner] + gain).view(len(hidden), -1))
        scores = torch.cat(parts, dim=1)  # [B, n_l]
        owner, _ = ragged.expand(*_all_children(trie, level))
        paths = torch.cat([paths[owner], trie.codes[level].unsqueeze(1)], dim=1)
    return _spread(scores, trie, loss)


def _decode(
    generator: Generator, memory: Memory, keys_values: list[KeysValues], paths: Tensor
) -> Tensor:
    """Return hidden states after each of P prefixes: ``paths`` int64 [P, l, M] -> [B, P, d]."""
    batch, n_paths = len(memory.lengths), len(paths)
    device = paths.device
    slots = Packing(torch.ones(batch, n_paths, dtype=torch.bool, device=device))
    hidden = generator.decoder.every_level(
        memory,
        keys_values,
        paths.repeat(batch, 1, 1),
        slots,
        memory.lengths[:, None] - 1,
    )  # [B * P, l + 1, d]
    states: Tensor = hidden[:, -1].unflatten(0, (batch, n_paths))
    return states


def _all_children(trie: Trie, level: int) -> tuple[Tensor, Tensor]:
    parents = torch.arange(len(trie.codes[level - 1]), device=trie.leaf_ptr.device)
    return trie.children(level, parents)


def _spread(scores: Tensor, trie: Trie, loss: str) -> Tensor:
    """Turn scores of leaves [B, n_leaves] into scores of items [B, n_items]."""
    leaves = trie.item_nodes[:, -1]  # [n_items]
    if loss == "item":
        every = torch.arange(scores.shape[1], device=scores.device)
        scores = scores + scoring.leaf_share(trie, every, scores.dtype)
    return scores[:, leaves.clamp(min=0)].masked_fill(leaves < 0, -torch.inf)
