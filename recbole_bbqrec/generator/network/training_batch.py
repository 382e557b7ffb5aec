"""A training batch with all the numbers and indices that its step needs from it.

A device computes ahead of the CPU as long as the CPU asks it for nothing, such as how many cells
of a grid are used. So the indices of a step are found here, on the CPU, before the batch is moved.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.packing import Packing, slots_of
from recbole_bbqrec.generator.batch.trie_paths import Choices, Run, choices
from recbole_bbqrec.generator.head.losses import child_runs
from recbole_bbqrec.generator.head.sampled_head import ItemSample, draw, is_sampled
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.decoder_rows import Steps
from recbole_bbqrec.generator.settings import GeneratorSettings


class TrainingBatch(NamedTuple):
    """B histories of up to T items and their n targets.

    * ``items``: int64 [B, T]; ``cells``: those of the grid that hold an item.
    * ``position``: int64 [B, S], the places of a history's targets, left aligned; ``slots``: the
      cells of that grid that hold one.
    * ``targets``: int64 [n], row by row; ``rows``, ``last``: int64 [n], the history of each and the
      place that it follows.
    * ``paths``, ``runs``: of the targets in the trie, for the item loss; else None and empty.
    * ``sample``: items that stand for all in a sampled item head, or None.
    * ``steps``: the decoder's rows.
    """

    items: Tensor
    cells: Packing
    position: Tensor
    slots: Packing
    targets: Tensor
    rows: Tensor
    last: Tensor
    paths: Choices | None
    runs: tuple[list[Run], ...]
    sample: ItemSample | None
    steps: Steps

    @classmethod
    def of(
        cls, config: GeneratorSettings, catalogue: Catalogue, items: Tensor, targets: Tensor
    ) -> TrainingBatch:
        """Lay out a batch, on the CPU: ``items``, ``targets`` int64 [B, T], 0 for none.

        Raises ValueError for a target that is not in the trie.
        """
        items, targets = items.cpu(), targets.cpu()
        mask = targets != 0  # [B, T]
        position, filled = slots_of(mask)
        slots = Packing(filled)
        rows, last = mask.nonzero().unbind(1)
        chosen = targets[mask]  # in the order of the packed slots
        paths: Choices | None = None
        runs: tuple[list[Run], ...] = ()
        sample: ItemSample | None = None
        depth = torch.full((len(chosen),), config.levels)
        if config.generation_loss == "item":
            trie = catalogue.trie_on_cpu
            paths = choices(trie, chosen)
            runs = child_runs(trie, paths, config.hidden_size if config.item_head else 0)
            depth = paths.depth
            if is_sampled(config, trie):
                sample = draw(config, trie, torch.cat([items.flatten(), chosen]), paths)
        steps = Steps(slots, depth, int(depth.max()))
        cells = Packing(items != 0)
        return cls(items, cells, position, slots, chosen, rows, last, paths, runs, sample, steps)
