"""Semantic IDs of the catalogue: made by a trained phase-one network, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any

import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.tokenizer.collisions import codes_used, count_collisions
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds

_FEW = 0.1  # share of a signal's codes; with fewer in use it hardly tells items apart
_CROWDED = 100  # items under one prefix on average; more are slow to rank


def make_semantic_ids(
    config: RunConfig,
    model: Any,
    network: Any,
    dataset: ItemDataset,
    *,
    split_hash: str,
    best_epoch: int,
) -> SemanticIds:
    """Tokenize all items and make the codes unique; log the collisions before and after.

    Warns of signals that use few of their codes.

    Args:
        config: the run's configuration.
        model: the generative recommender that the codes are for.
        network: its trained phase-one network.
        dataset: the training data.
        split_hash: identifies the split of the data.
        best_epoch: epoch of the network's weights.
    """
    quantized = network.tokenize()
    unique = model.make_unique(config, quantized)
    before, groups = count_collisions(quantized.codes)
    after, _ = count_collisions(unique.codes)
    getLogger().info(
        f"tokenize: {before} of {len(unique.codes) - 1} items share their semantic ID with another "
        f"({groups} groups) before re-assignment, {after} after"
    )
    for message in collapsed(quantized.codes, network.signals, config["codebook_size"]):
        getLogger().warning(message)
    for message in crowded(unique.codes):
        getLogger().warning(message)
    metadata: dict[str, Any] = {
        "dataset": config["dataset"],
        "split_hash": split_hash,
        "model": config["model"],
        "tokenizer": model.tokenizer_name(),
        "seed": config["seed"],
        "levels": config["codebook_levels"],
        "codebook_size": config["codebook_size"],
        "collisions_before": before,
        "collisions_after": after,
        "epoch": best_epoch,
    }
    for name in network.signals:
        if name in dataset.modalities:
            metadata[f"fingerprint_{name}"] = dataset.item_features(name).fingerprint
    return SemanticIds(
        item_tokens=tuple(dataset.item_tokens[1:]),
        codes=unique.codes[1:].cpu(),
        vectors=unique.vectors[1:].cpu(),
        codebooks=unique.codebooks.cpu(),
        signals=tuple(network.signals),
        metadata=metadata,
        codes_before=quantized.codes[1:].cpu(),
    )


def collapsed(codes: torch.Tensor, signals: Sequence[str], codebook_size: int) -> list[str]:
    """Return a warning for each signal that uses under 10 % of its codes, all levels together.

    Args:
        codes: int64 [n_items, L, M], row 0 unused.
        signals: names of the M signals.
        codebook_size: N. A catalogue of fewer items cannot use them all.
    """
    used = codes_used(codes)  # [L, M]
    possible = min(codebook_size, len(codes) - 1) * len(used)
    return [
        f"The signal {name} uses {' / '.join(map(str, of.tolist()))} of {codebook_size} codes at "
        f"levels 1 to {len(used)}, so it hardly tells items apart. Balance the losses of phase "
        "one, with BBQRec by `recon_reduction: mean`, `mim_reduction: mean` or a lower "
        "`mim_weight`, or give it fewer codes (`codebook_size`)."
        for name, of in zip(signals, used.T)
        if int(of.sum()) < _FEW * possible
    ]


def crowded(codes: torch.Tensor) -> list[str]:
    """Return a warning if items share all levels but the last with very many others.

    The beam scores every item under a prefix: 60,000 items in 256 groups took 52 ms a user instead
    of 4. ``codes`` are int64 [n_items, L, M], row 0 unused.
    """
    prefixes = codes[1:, :-1].flatten(1)
    if not prefixes.shape[1]:
        return []
    sizes = torch.unique(prefixes, dim=0, return_counts=True)[1]
    mean = float((sizes * sizes).sum()) / max(1, len(prefixes))  # items with an item's prefix
    if mean <= _CROWDED:
        return []
    return [
        f"The {len(prefixes):,} items share {len(sizes):,} prefixes of {codes.shape[1] - 1} "
        f"levels: an item's prefix has {mean:.0f} items on average, at most "
        f"{int(sizes.max()):,}. Ranking is slow, and the last level alone tells these apart. "
        "Raise `codebook_size` or `codebook_levels`, train phase one longer (`tokenizer_epochs`), "
        "or use more signals."
    ]


def align_semantic_ids(
    semantic_ids: SemanticIds,
    config: RunConfig,
    model: Any,
    dataset: ItemDataset,
    *,
    split_hash: str,
    features: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes [n_items, L, M] and vectors [n_items, V], ordered by internal item id.

    Raises:
        UserError: the IDs come from another tokenizer, other data or other options.
    """
    expected = model.tokenizer_name()
    tokenizer = semantic_ids.metadata.get("tokenizer", expected)
    if tokenizer != expected:
        raise UserError(
            f"Option `tokenizer_path`: the semantic IDs come from the tokenizer of {tokenizer}; "
            f"{config['model']} is defined by that of {expected}. Leave the option out."
        )
    return semantic_ids.align(
        dataset.item_tokens,
        config["dataset"],
        split_hash=split_hash or None,
        fingerprints={name: feature["fingerprint"] for name, feature in features.items()},
        levels=config["codebook_levels"],
        codebook_size=config["codebook_size"],
        width=model.vectors.shape[1],
        signals=model.signals_of(config),
    )
