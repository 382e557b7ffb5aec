"""The README of an exported model, made from the result of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_bbqrec.portable.model import PortableModel
from recbole_bbqrec.protocols import RunConfig


def model_card(
    result: Mapping[str, Any], config: RunConfig, model: PortableModel, no_programs: str | None
) -> str:
    """Return the card as Markdown with a header in YAML, as Hugging Face reads it.

    Args:
        result: ``result.json`` of the run.
        config: its configuration.
        model: what is exported.
        no_programs: why the folder has no programs of ``torch.export``; None where it has.
    """
    name, data = result["model"], result["dataset"]
    split, users = result.get("split") or {}, result.get("users") or {}
    features = result.get("features") or {}
    weights = sum(p.numel() for p in model.generator.parameters())
    metrics = [f"| {key} | {value:.4f} |" for key, value in sorted(result["test_result"].items())]
    inputs = [
        f"* {modality}: {entry.get('encoder', 'unknown encoder')}, {entry.get('dim')} dimensions"
        for modality, entry in features.items()
    ] or ["* none: IDs alone"]
    programs = (
        "`encoder.pt2` and `decoder_<level>.pt2` are the network's two steps as programs of "
        "`torch.export`."
        if no_programs is None
        else f"There are no programs of `torch.export`: {no_programs}."
    )
    added = result.get("added_items")
    later = f"\n* {added['items_added']:,} items were added without training." if added else ""
    masked = "left out of" if result.get("mask_history") else "part of"
    return f"""---
library_name: recbole_bbqrec
tags: [recommender-systems, sequential-recommendation, generative-retrieval, semantic-id]
---

# {name} on {data}

Recommends the next item after a history of items. A transformer generates the item's semantic ID,
by beam search over the {len(model.tokens) - 1:,} items that exist.

## Use

Without RecBole: torch, NumPy and safetensors are enough.

```python
from recbole_bbqrec.portable.model import PortableModel

model = PortableModel.load(".")
model.recommend([["{model.tokens[1]}", "{model.tokens[min(2, len(model.tokens) - 1)]}"]], k=10)
```

{programs} `items.txt` has the token of item 1, 2, ...

## Data

* Data set {data}: {users.get("all", "?"):,} users, {len(model.tokens) - 1:,} items; split
  {result["split_hash"]}.
* Histories of at most {model.generator.config.max_history} items are read.
{chr(10).join(inputs)}{later}

## Metrics

Protocol: {split.get("protocol", config["protocol"] or "leave_one_out")}, test split, all items
ranked, strict hits, {users.get("tested", "?"):,} users; the history is {masked} the ranking.

| metric | test |
|---|---|
{chr(10).join(metrics)}

## Limits

* It knows the items of `items.txt` and no user: a list depends on the history alone.
* Offline metrics on one split, with seed {result["seed"]}; other seeds and data give others.
* What is popular in the training data, and any bias in it, is learned with the rest.
* The history's order is that of the data's times; where times tie, the file decides.

{weights:,} weights, precision {model.precision}, beam {model.num_beams}.
"""
