"""Ten test users: history, recommendations and next item, as titles."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_bbqrec.experiment.report_card.ranking import Ranking
from recbole_bbqrec.metrics.per_user_values import ranks
from recbole_bbqrec.protocols import ItemDataset

_USERS = 10  # shown


def example_users(
    ranking: Ranking, dataset: ItemDataset, titles: dict[str, str], seed: int
) -> list[dict[str, Any]]:
    """Draw up to ten users by ``seed``: half with the next item in their list, half without.

    If one kind is too rare, the other takes its place. Items are {"token", "title"}; histories
    start with the oldest item.
    """
    rank = ranks(ranking.items, ranking.targets)
    drawn = np.random.default_rng(seed).permutation(len(rank))
    hits, misses = drawn[rank[drawn] > 0], drawn[rank[drawn] == 0]
    half = _USERS // 2
    n_hits = max(min(half, len(hits)), min(len(hits), _USERS - len(misses)))
    rows = [*hits[:n_hits], *misses[: _USERS - n_hits]]
    user_token = dataset.field2id_token[dataset.uid_field]
    item_token = dataset.field2id_token[dataset.iid_field]

    def described(item: int) -> dict[str, str]:
        token = str(item_token[item])
        return {"token": token, "title": titles.get(token, "") or token}

    return [
        {
            "user": str(user_token[int(ranking.users[row])]),
            "history": [
                described(i) for i in ranking.histories[row, : int(ranking.lengths[row])].tolist()
            ],
            "recommended": [described(item) for item in ranking.items[row].tolist()],
            "next": described(int(ranking.targets[row])),
            "rank": int(rank[row]) or None,
        }
        for row in map(int, rows)
    ]
