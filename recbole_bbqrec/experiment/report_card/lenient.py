"""Strict and collision-lenient metrics.

Strict, as in every table of this project: a recommendation counts if it is the user's next item.
Lenient: it also counts if it only shares that item's semantic ID as the quantizer gave it, before
re-assignment. Evaluations that compare generated IDs instead of items are lenient: each collision
is a chance to be right with the wrong item.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recbole_bbqrec.experiment.report_card.codes import Codes, id_groups
from recbole_bbqrec.experiment.report_card.ranking import Ranking
from recbole_bbqrec.metrics.per_user_values import first_match, means, ranks, user_values


def strict_and_lenient(
    ranking: Ranking, codes: Codes, names: Iterable[str], topk: Iterable[int]
) -> dict[str, Any] | None:
    """Return both over all test users; None if the codes before re-assignment are unknown."""
    if codes.before is None:
        return None
    names, topk = list(names), list(topk)
    groups = id_groups(codes.before)
    same_id = groups[ranking.items] == groups[ranking.targets].unsqueeze(1)  # [n, K]
    strict = user_values(ranks(ranking.items, ranking.targets), names, topk)
    lenient = user_values(first_match(same_id), names, topk)
    return {"strict": means(strict), "lenient": means(lenient)}
