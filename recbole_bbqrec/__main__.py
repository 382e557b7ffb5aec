"""``python -m recbole_bbqrec``."""

import sys

from recbole_bbqrec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
