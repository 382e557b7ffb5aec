"""Events that a data set holds twice, with the same user, item and time."""

from __future__ import annotations

from logging import getLogger

from recbole_bbqrec.protocols import ItemDataset


def warn_of_duplicates(dataset: ItemDataset) -> None:
    """Log how many events of a data set that is not yet built stand twice; a run reads all."""
    frame = dataset.inter_feat
    fields = [dataset.uid_field, dataset.iid_field, dataset.time_field]
    if any(field not in frame for field in fields):
        return
    twice = frame[fields].duplicated()
    if not twice.any():
        return
    user, item, time = frame[fields][twice].iloc[0]
    log_duplicates(dataset, int(twice.sum()), len(frame), (int(user), int(item)), time)


def log_duplicates(
    dataset: ItemDataset, count: int, events: int, first: tuple[int, int], time: float
) -> None:
    """Log ``count`` repeated events of ``events``; ``first`` has ids of a user and an item."""
    fields = [dataset.uid_field, dataset.iid_field]
    tokens = [dataset.field2id_token[field][number] for field, number in zip(fields, first)]
    getLogger().warning(
        f"{count:,} of {events:,} events stand there twice, with the same user, "
        f"item and time (the first: user {tokens[0]}, item {tokens[1]}, time {time:.15g}). All are "
        "read; remove them from the .inter file if they were recorded twice."
    )
