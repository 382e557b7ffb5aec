"""Train and test a model: ``python run_recbole_bbqrec.py --model=BBQRec --dataset=Mini``."""

import sys

from recbole_bbqrec.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
