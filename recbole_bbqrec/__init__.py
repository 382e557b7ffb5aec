"""BBQRec, a two-phase generative multi-modal sequential recommender, as a RecBole plugin."""

from recbole_bbqrec import compat
from recbole_bbqrec.version import __version__

compat.require_recbole()

__all__ = ["__version__"]
