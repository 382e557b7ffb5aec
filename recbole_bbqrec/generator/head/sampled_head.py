"""Sampled softmax of the item head, for catalogues whose every item is too many for a step.

The first level's normaliser is a sum over all items,

    Z = sum over items i of exp(codes(root of i) + score(i)),

and only this sum is sampled. The items of the batch, its targets and histories, are in it with
certainty, and so are all items below a target's own first-level node, whose sum the numerator needs
in any case. For the rest stand uniform draws, one from each of S equal stretches of the items in
the order of the trie, so that every part of the trie has its share. An item drawn c times counts
c / (S / I)-fold, S / I being the draws to be expected of it: the log-q correction. The sum so
estimated has the right expectation, its logarithm one that errs by O(1 / S). Levels below the first
sum over the items below one node, exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.trie_paths import Choices, Run
from recbole_bbqrec.generator.head import parts
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.settings import GeneratorSettings

SAMPLED_FROM = 200_000  # items; with fewer, `auto` scores all of them in every step


class ItemSample(NamedTuple):
    """Items that stand for all in one step, by their places in ``Trie.leaf_items``.

    * ``candidates``: int64 [C], ascending; ``log_weight``: float64 [C], minus log q.
    * ``held``: int64 [K], ascending: the candidates and all items below the targets' nodes.
    * ``runs``: of targets, whose own nodes' items are scored together.
    """

    candidates: Tensor
    log_weight: Tensor
    held: Tensor
    runs: list[Run]


def is_sampled(config: GeneratorSettings, trie: Trie) -> bool:
    """Return True if the item head is trained on a sample of the items of ``trie``."""
    if not config.item_head or config.item_head_sampling == "full":
        return False
    return config.item_head_sampling == "sampled" or len(trie.leaf_items) >= SAMPLED_FROM


def draw(config: GeneratorSettings, trie: Trie, items: Tensor, paths: Choices) -> ItemSample:
    """Draw the items of a step from torch's default generator, on the CPU.

    ``items`` int64, of any shape: those of the batch, 0 for none; ``paths``: of its targets. With
    as many draws as there are items each of them is drawn once, and nothing is left to chance.
    """
    n_items = len(trie.leaf_items)
    count = min(config.item_head_samples, n_items)
    stretch = torch.arange(count, dtype=torch.float64) + torch.rand(count, dtype=torch.float64)
    drawn = (stretch * (n_items / count)).long().clamp_(max=n_items - 1)
    drawn, times = torch.unique_consecutive(drawn, return_counts=True)
    certain = trie.item_places[torch.unique(items)]
    certain = certain[certain >= 0]
    by_chance = ~torch.isin(drawn, certain)
    weight = (times[by_chance] * (n_items / count)).double().log()
    candidates, order = torch.cat([certain, drawn[by_chance]]).sort()
    log_weight = torch.cat([weight.new_zeros(len(certain)), weight])[order]

    nodes, pointer = paths.nodes[:, 0], trie.item_ptr(0)
    distinct = torch.unique(nodes)
    _, below = ragged.expand(pointer[distinct], pointer.diff()[distinct])
    sizes = pointer.diff()[nodes]  # [n]
    cuts = ragged.chunks(sizes, max(1, parts.KEYS_AT_ONCE // config.hidden_size))
    runs = [Run(part, part.stop - part.start, int(sizes[part].sum())) for part in cuts]
    return ItemSample(candidates, log_weight, torch.unique(torch.cat([candidates, below])), runs)


def sampled_root_loss(
    logits: Tensor, scores: ItemScores, nodes: Tensor, sample: ItemSample
) -> Tensor:
    """Estimate what :func:`~recbole_bbqrec.generator.head.head_loss.root_loss` returns.

    ``logits`` [n, M * N] over codes, ``nodes`` int64 [n]; ``scores`` of the same n histories hold
    the keys of ``sample.held``.
    """
    trie, wide, candidates = scores.trie, scores.dtype, sample.candidates
    own = logits.gather(1, trie.root_columns[nodes]).sum(1).to(wide)
    own = own + _own_masses(scores, nodes, sample.runs)  # [n]
    roots = trie.item_nodes[trie.leaf_items[candidates], 0]  # [C]
    keys = scores.keys.index_select(0, torch.searchsorted(sample.held, candidates))
    every = (keys @ scores.states.t()).to(wide)  # [C, n]
    row = torch.arange(len(nodes), device=nodes.device).unsqueeze(1)
    place = torch.searchsorted(candidates, scores.seen.clamp(min=0)).clamp(max=len(candidates) - 1)
    repeat = torch.where(scores.seen >= 0, scores.repeat, 0).to(wide)
    every = every.index_put((place, row), repeat, accumulate=True)
    codes = F.embedding_bag(
        trie.root_columns[roots], logits.to(wide).t().contiguous(), mode="sum"
    )  # [C, n]
    every = every + codes + sample.log_weight.to(wide).unsqueeze(1)
    every = every.masked_fill(roots.unsqueeze(1) == nodes, -torch.inf)
    norm = torch.cat([every, own.unsqueeze(0)]).logsumexp(0)
    return (norm - own).sum()


def _own_masses(scores: ItemScores, nodes: Tensor, runs: list[Run]) -> Tensor:
    """Return the mass of each target's first-level node: [n]."""

    def part(run: Run, nodes: Tensor, *tensors: Tensor) -> Tensor:
        rows = torch.arange(len(nodes), device=nodes.device)
        return scores.with_tensors(*tensors).masses(0, rows, nodes, run.items)

    masses = [
        parts.in_parts(
            len(runs) > 1, part, run, nodes[run.part], scores.seen[run.part], scores.keys,
            scores.states[run.part], scores.repeat[run.part],
        )
        for run in runs
    ]  # fmt: skip
    return torch.cat(masses)
