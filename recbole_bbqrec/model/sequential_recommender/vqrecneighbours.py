"""VQRec with the neighbours of the history in its scores."""

from __future__ import annotations

from recbole_bbqrec.model.parts.neighbour_model import WithNeighbours
from recbole_bbqrec.model.sequential_recommender.vqrec import VQRec


class VQRecNeighbours(WithNeighbours, VQRec):
    """Ranks by VQRec's logits plus what ItemNeighbours ranks by, each kind by its weight.

    As ESASRecNeighbours, over the baseline whose network did best on Beauty with the history masked
    (docs/results.md). Trained exactly as VQRec; the epoch is chosen with neighbours.
    """
