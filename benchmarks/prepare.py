"""Preparing a large data set of one's own: rows a second and peak memory.

Writes synthetic tables (users, items and times in random order; a title an item) and prepares a
data set from them in a process of its own, first from the interactions alone. Texts are not
encoded: that cost is the encoder's. ``--load`` then reads the result as RecBole does.

    python benchmarks/prepare.py [--rows 10000000] [--users 1000000] [--items 500000] [--load]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK, WIDTH = 1_000_000, 64

LOAD = """
import sys
from recbole_bbqrec.data.loaders import create_dataset
from recbole_bbqrec.config.config import BBQRecConfig
from recbole.data.dataset import SequentialDataset
config = BBQRecConfig("SASRec", sys.argv[1], [], {"data_path": sys.argv[2]})
print(create_dataset(config, SequentialDataset).inter_num)
"""


def write_tables(folder: Path, rows: int, users: int, items: int) -> None:
    """events.csv in no order, items.csv with titles, and features for every item."""
    rng = np.random.default_rng(0)
    with open(folder / "events.csv", "w") as file:
        file.write("user_id,item_id,timestamp\n")
        for begin in range(0, rows, BLOCK):
            count = min(BLOCK, rows - begin)
            # Squared, so that some users and items are frequent and some fall below the core.
            who = (users * rng.random(count) ** 2).astype(int)
            what = (items * rng.random(count) ** 2).astype(int)
            when = rng.integers(1_300_000_000, 1_700_000_000, count)
            columns = zip(who.tolist(), what.tolist(), when.tolist())
            file.writelines(map("user%08d,item%08d,%d\n".__mod__, columns))
    with open(folder / "items.csv", "w") as file:
        file.write("item_id,title\n")
        file.writelines(map("item%08d,Title number %d of the catalogue\n".__mod__,
                            zip(range(items), range(items))))  # fmt: skip
    np.save(folder / "look.npy", rng.random((items, WIDTH), dtype=np.float32))


def measured(name: str, command: list[str], rows: int) -> str:
    """A row of the table: wall and processor seconds, and peak memory, of a child (POSIX)."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall, busy = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
    if status:
        return f"| {name} | failed | | | |\n{output}"
    peak = usage.ru_maxrss / 2**10  # KiB on Linux
    return f"| {name} | {wall:.0f} | {busy:.0f} | {rows / busy:,.0f} | {peak:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--load", action="store_true", help="also load the result with RecBole")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    options = parser.parse_args()
    if options.small:
        for name in ("rows", "users", "items"):
            setattr(options, name, max(1, getattr(options, name) // 100))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_tables(folder, options.rows, options.users, options.items)
        size = (folder / "events.csv").stat().st_size / 2**20
        print(f"{options.rows:,} rows ({size:,.0f} MiB), {options.users:,} users, "
              f"{options.items:,} items")  # fmt: skip
        print("| | wall s | processor s | rows a processor second | peak MiB |")
        print("|---|---|---|---|---|", flush=True)
        events = ["--interactions", str(folder / "events.csv"), "--data_path", name, "--force"]
        prepare = [sys.executable, "-m", "recbole_bbqrec", "prepare", "Large", *events]
        print(measured("interactions", prepare, options.rows), flush=True)
        # A title but no text: the table has no column that a text is made of but --features text.
        more = ["--items", str(folder / "items.csv"), "--features", f"text={folder / 'look.npy'}"]
        print(measured(f"and titles, and features of {WIDTH} columns", prepare + more,
                       options.rows), flush=True)  # fmt: skip
        if options.load:
            load = [sys.executable, "-c", LOAD, "Large", str(folder)]
            print(measured("loading by RecBole", load, options.rows), flush=True)


if __name__ == "__main__":
    main()
