"""Check, before training, that the catalogue has as many items as an evaluation ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole.config import Config

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.names import has_cutoff
from recbole_bbqrec.protocols import ItemDataset


def check_catalogue_size(config: Config, dataset: ItemDataset, parts: Sequence[Any]) -> None:
    """Refuse a ``topk`` above the number of items that ``dataset`` and ``mask_history`` leave.

    Args:
        config: the run's configuration.
        dataset: the whole data set.
        parts: its parts for training, validation and test.

    Raises:
        UserError: a ranking of the evaluation would be too short.
    """
    partition = config["reranker_CAN_NUM"]  # of RecBole's CPR models: the first is the largest
    if partition is not None and int(str(partition).split(",")[0]) > dataset.item_num:
        raise UserError(
            f"Option `reranker_CAN_NUM` is {partition}; {config['dataset']} has "
            f"{dataset.item_num - 1} items, of which {config['model']} would set aside so many. "
            "Lower it."
        )
    if not any(has_cutoff(metric) for metric in config["metrics"]):
        return
    items, topk = dataset.item_num - 1, config["topk"]  # without [PAD]
    if max(topk) > items:
        raise UserError(
            f"Option `topk` is {topk}; {config['dataset']} has {items} items that a run reads. "
            "Lower it, and with it `valid_metric` where that is at a larger k."
        )
    # Models that score every item rank the masked ones last; a beam has nothing to put there.
    spec = getattr(config, "spec", None)  # RecBole's own Config has none
    if spec is None or not spec.two_phase or not config["mask_history"]:
        return
    if items - config["MAX_ITEM_LIST_LENGTH"] >= max(topk):
        return
    field = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    masked = max(_most_items(part.inter_feat[field]) for part in parts[1:])
    if items - masked < max(topk):
        raise UserError(
            f"Option `topk` is {topk} and `mask_history` is True; {config['dataset']} has {items} "
            f"items, of which a user with {masked} in the history is left {items - masked}. Lower "
            "`topk` to at most that, shorten the histories with `MAX_ITEM_LIST_LENGTH`, or leave "
            "`mask_history` out."
        )


def _most_items(histories: Any) -> int:
    """Count the most different items in one history: int64 [n, T], 0 where there is none."""
    if not len(histories):
        return 0
    ordered = histories.sort(dim=1).values  # [n, T]
    first = ordered > 0
    first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return int(first.sum(1).max())
