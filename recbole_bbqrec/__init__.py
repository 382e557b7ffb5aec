"""BBQRec, a two-phase generative multi-modal sequential recommender, as a RecBole plugin.

``run`` trains and tests a model, ``load_run`` loads a finished run, ``Session`` follows one user on
it, and ``add_model`` names a model class of one's own for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_bbqrec import compat
from recbole_bbqrec.version import __version__

if TYPE_CHECKING:
    from recbole_bbqrec.model.registry import add_model
    from recbole_bbqrec.quick_start import load_run, run
    from recbole_bbqrec.serving.session import Session

__all__ = ["Session", "__version__", "add_model", "load_run", "run"]


def __getattr__(name: str) -> Any:
    """Import the functions on first use: torch and RecBole take seconds to load."""
    if name in __all__:
        compat.require_recbole()
    if name in ("load_run", "run"):
        from recbole_bbqrec import quick_start

        return getattr(quick_start, name)
    if name == "add_model":
        from recbole_bbqrec.model import registry

        return registry.add_model
    if name == "Session":
        from recbole_bbqrec.serving import session

        return session.Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
