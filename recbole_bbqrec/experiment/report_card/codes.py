"""Semantic IDs of a run: use of the codes, and items that share a whole ID."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.tokenizer.collisions import count_collisions
from recbole_bbqrec.tokenizer.quantizer import perplexity
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds

_MOST_BINS = 64  # columns of a heat map of the codes


class Codes(NamedTuple):
    """Codes of all items in the model's order; row 0 ([PAD]) is unused.

    Attributes:
        final: int64 [n_items, L, M], the codes that the model uses.
        before: int64 [n_items, L', M], the quantizer's codes before collisions were resolved, or
            None if the run did not keep them.
        size: N of a codebook.
        signals: M names.
        places: L names of the levels.
    """

    final: Tensor
    before: Tensor | None
    size: int
    signals: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def quantized(self) -> Tensor:
        """The quantizer's own codes if known, else the final ones."""
        return self.final if self.before is None else self.before


def codes_of(config: RunConfig, model: Any, dataset: ItemDataset, run: FinishedRun) -> Codes | None:
    """Return the codes of a generative or product-quantization model; None for other models."""
    if spec(config["model"]).two_phase:
        final = model.codes.cpu()
        before = _codes_before(config, dataset, run, final)
        places = tuple(f"level {level + 1}" for level in range(final.shape[1]))
        return Codes(final, before, model.codebook_size, model.signals_of(config), places)
    item_codes = getattr(model, "item_codes", None)
    if item_codes is None:
        return None
    final = item_codes.codes.cpu().unsqueeze(-1)  # [n_items, digits, 1]
    places = tuple(f"digit {digit + 1}" for digit in range(final.shape[1]))
    return Codes(final, final, item_codes.codebook_size, (item_codes.features.name,), places)


def _codes_before(
    config: RunConfig, dataset: ItemDataset, run: FinishedRun, final: Tensor
) -> Tensor | None:
    """Return the quantizer's codes from the run's semantic IDs, if these are still the same."""
    path = run.files.semantic_ids
    if not path.is_file() and config["tokenizer_path"] is not None:
        path = Path(config["tokenizer_path"])
    try:
        ids = SemanticIds.load(path)
        codes, _ = ids.align(dataset.item_tokens, config["dataset"])
    except UserError as error:
        getLogger().warning(f"codes before re-assignment: {error}")
        return None
    if ids.codes_before is None or not torch.equal(codes, final):
        return None
    row_of = {token: row for row, token in enumerate(ids.item_tokens)}
    rows = torch.tensor([row_of[token] for token in dataset.item_tokens[1:]])
    before = ids.codes_before[rows]
    return torch.cat([before.new_zeros(1, *before.shape[1:]), before])


def code_use(codes: Codes) -> dict[str, Any]:
    """Measure how many of the N codes each signal uses at each level, and how evenly.

    Utilisation is the share of codes that any item has. Perplexity is exp(entropy) of the items'
    codes: N if all are used equally, 1 if all items have the same code.
    """
    quantized = codes.quantized[1:]  # [n, L', M]
    entries = []
    for level, place in zip(range(quantized.shape[1]), codes.places):
        for index, signal in enumerate(codes.signals):
            counts = torch.bincount(quantized[:, level, index], minlength=codes.size)
            entries.append(
                {
                    "level": place,
                    "signal": signal,
                    "used": int((counts > 0).sum()),
                    "utilisation": float((counts > 0).double().mean()),
                    "perplexity": float(perplexity(counts.double())),
                    "shares": _shares(counts),
                }
            )
    return {
        "codebook_size": codes.size,
        "levels": list(codes.places[: quantized.shape[1]]),
        "signals": list(codes.signals),
        "before_reassignment": codes.before is not None,
        "use": entries,
    }


def _shares(counts: Tensor) -> list[float]:
    """Return the share of the items at each code, most used first, in at most 64 bins of codes."""
    ordered = counts.double().sort(descending=True).values / counts.sum().clamp(min=1)
    bins = ordered.split(-(-len(ordered) // _MOST_BINS))
    return [round(float(part.sum()), 5) for part in bins]


def collisions(codes: Codes) -> dict[str, Any]:
    """Count the items that share their semantic ID, before and after re-assignment."""
    after = count_collisions(codes.final)
    counted: dict[str, Any] = {
        "items": len(codes.final) - 1,
        "after": {"items": after.items, "groups": after.groups},
        "before": None,
        "group_sizes": {},
    }
    if codes.before is not None:
        before = count_collisions(codes.before)
        counted["before"] = {"items": before.items, "groups": before.groups}
        sizes, groups = torch.unique(group_sizes(codes.before), return_counts=True)
        counted["group_sizes"] = {
            str(size): count for size, count in zip(sizes.tolist(), groups.tolist()) if size > 1
        }
    return counted


def group_sizes(codes: Tensor) -> Tensor:
    """Count the items of each ID: codes int64 [n_items, L, M] without row 0 -> int64 [groups]."""
    return torch.unique(codes[1:].flatten(1), dim=0, return_counts=True)[1]


def id_groups(codes: Tensor) -> Tensor:
    """Number the IDs: int64 [n_items], equal for items of one ID, -1 for [PAD]."""
    groups = torch.unique(codes[1:].flatten(1), dim=0, return_inverse=True)[1]
    return torch.cat([groups.new_full((1,), -1), groups])
