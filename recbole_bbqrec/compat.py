"""Make RecBole 1.2.1 run on current NumPy and torch. Imported first by the package.

RecBole's ``Config`` reads NumPy aliases that NumPy 2 removed (``float_``, ``complex_``,
``unicode_``): add the missing ones. Silence warnings about RecBole's own code. Loading of
checkpoints stays safe: see :mod:`recbole_bbqrec.run_files.checkpoint`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings

import numpy as np

RECBOLE_VERSION = "1.2.1"

#: sys.argv[0] of our command lines while they import the package; -m is that of `python -m`.
_COMMANDS = ("-m", "recbole-bbqrec", "run_recbole_bbqrec.py")
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
    """Refuse to go on if RecBole is absent or of another version; the message says what to install.

    A command line, which imports the package before it can handle an error, ends with the message.

    Raises:
        ImportError: in any other process.
    """
    fault = _fault()
    if fault is None:
        return
    if os.path.basename(sys.argv[0] if sys.argv else "") in _COMMANDS:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(fault)


def _fault() -> str | None:
    instruction = f"pip install --no-deps recbole=={RECBOLE_VERSION}"
    if importlib.util.find_spec("recbole") is None:
        return (
            f"recbole_bbqrec needs RecBole {RECBOLE_VERSION}, which is not installed. On Python "
            "3.12 and newer pip cannot install it as a dependency (its ray pin has no wheel "
            f"there); its other requirements are already in place, so run: {instruction}"
        )
    import recbole

    if recbole.__version__ != RECBOLE_VERSION:
        return (
            f"recbole_bbqrec needs RecBole {RECBOLE_VERSION}; version {recbole.__version__} is "
            f"installed. Run: {instruction}"
        )
    return None
