"""ESASRec with the neighbours of the history in its scores: a fair rival of BBQRec."""

from __future__ import annotations

from recbole_bbqrec.model.parts.neighbour_model import WithNeighbours
from recbole_bbqrec.model.sequential_recommender.esasrec import ESASRec


class ESASRecNeighbours(WithNeighbours, ESASRec):
    """Ranks by ESASRec's logits plus what ItemNeighbours ranks by, each kind by its weight.

    BBQRec adds the same to its item head at decoding, so that a comparison with it shows what the
    rest of BBQRec is worth. Trained exactly as ESASRec; the epoch is chosen with neighbours.
    """
