"""Make RecBole 1.2.1 run on current NumPy and torch. Imported first by the package.

RecBole's ``Config`` reads NumPy aliases that NumPy 2 removed (``float_``, ``complex_``,
``unicode_``): add the missing ones. Silence warnings about RecBole's own code. Loading of
checkpoints stays safe: see :mod:`recbole_bbqrec.run_files.checkpoint`.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np

RECBOLE_VERSION = "1.2.1"

_ALIASES = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}
for _name, _type in _ALIASES.items():
    if _name not in np.__dict__:
        setattr(np, _name, _type)

# RecBole makes a GradScaler of the deprecated kind every epoch.
warnings.filterwarnings(
    "ignore", message=r".*torch\.cuda\.amp\.GradScaler.*", category=FutureWarning
)
# RecBole fills missing values by chained assignment; the required pandas still allows it.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
# RecBole imports thop to count FLOPs, which is not used here; thop still imports distutils.
warnings.filterwarnings("ignore", message=r".*distutils.*", category=DeprecationWarning)


def require_recbole() -> None:
    """Refuse to go on if RecBole is absent, broken or of another version; say what to install.

    Raises:
        ImportError: with the message.
    """
    fault = _fault()
    if fault is not None:
        raise ImportError(fault)


def _fault() -> str | None:
    instruction = f"pip install --no-deps recbole=={RECBOLE_VERSION}"
    try:
        absent = importlib.util.find_spec("recbole") is None
    except ValueError:  # something else is in its place
        absent = False
    if absent:
        return (
            f"recbole_bbqrec needs RecBole {RECBOLE_VERSION}, which is not installed. On Python "
            "3.12 and newer pip cannot install it as a dependency (its ray pin has no wheel "
            f"there); its other requirements are already in place, so run: {instruction}"
        )
    try:
        import recbole

        version = recbole.__version__
    except Exception as error:  # whatever a broken installation leads to
        return (
            f"recbole_bbqrec needs RecBole {RECBOLE_VERSION}; what is installed cannot be imported "
            f"({type(error).__name__}: {error}). Run: {instruction} --force-reinstall"
        )
    if version != RECBOLE_VERSION:
        return (
            f"recbole_bbqrec needs RecBole {RECBOLE_VERSION}; version {version} is "
            f"installed. Run: {instruction}"
        )
    return None
