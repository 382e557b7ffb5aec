"""An update against training anew: metrics on new events, and seconds.

The events of a prepared data set with times are cut in time: a run is trained on those before the
cut, updated with those after it, and trained anew on all. All three rank the test targets that lie
after the cut; nothing was trained on these. Steps that are done are kept in --output.

    python benchmarks/update.py --output FOLDER [--dataset Mini] [--share 0.05] [--epochs 2]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_bbqrec import load_run, run
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.runtime import tune_allocator
from recbole_bbqrec.upkeep.newest_day import measure
from recbole_bbqrec.upkeep.update import NewData, update


def trained(folder: Path, dataset: str, options: dict[str, Any]) -> Path:
    """Train a run below ``folder``, or go on with it, and return its directory."""
    note = folder / "run.txt"
    if not note.is_file():
        given = {**options, "checkpoint_dir": str(folder), "resume": "auto", "state": "WARNING"}
        result = run("BBQRec", dataset, overrides={**given, "show_progress": False})
        directory = RunFiles.at(Path(result["files"]["model"])).directory
        note.write_text(str(directory))
    return Path(note.read_text())


def seconds(directory: Path) -> float:
    return float(json.loads((directory / "result.json").read_text())["seconds"]["train"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data-path", type=Path, default=Path("dataset"))
    parser.add_argument("--dataset", default="Mini")
    parser.add_argument("--share", type=float, default=0.05, help="of the events, after the cut")
    parser.add_argument("--epochs", type=int, nargs="+", default=[2])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001])
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    name, root = options.dataset, options.output.absolute()
    source = options.data_path.absolute() / name
    data = root / "data" / name
    events = pd.read_csv(source / f"{name}.inter", sep="\t")
    times = events["unix_time:float"]
    cut = times.quantile(1 - options.share)
    if not data.is_dir():
        data.mkdir(parents=True)
        for path in source.iterdir():
            (data / path.name).symlink_to(path)
        (data / f"{name}.inter").unlink()
        before = events[times <= cut]
        before.to_csv(data / f"{name}.inter", sep="\t", index=False)
        after = events[times > cut].drop(columns="timestamp:float")
        after.columns = ["user_id", "item_id", "timestamp"]
        known = set(before["item_id:token"])
        after[after["item_id"].isin(known)].to_csv(root / "new.csv", index=False)
    old = trained(root / "old", name, {"data_path": str(root / "data")})
    updated = {}
    for epochs in options.epochs:
        for rate in options.rates:
            place = root / f"updated-{epochs}-{rate:g}"
            if not place.is_dir():
                update(old, NewData(root / "new.csv"), place, epochs, rate)
            updated[f"updated, {epochs} epochs, learning rate {rate:g}"] = place
    latest = list(updated.values())[-1]
    every = {"user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}
    anew = trained(root / "anew", name, {"data_path": str(latest / "data"), **every})

    whole = load_run(latest)
    part = whole.test_data._dataset
    chosen = whole.dataset.events.times[part.event_index] > cut
    rows = {"before": old, **updated, "trained anew": anew}
    print(f"{name}, {int(chosen.sum())} test targets after the cut")
    for label, place in rows.items():
        _, found, _ = measure(load_run(place), whole, np.asarray(chosen))
        shown = f"{found['recall@10']:.4f} / {found['ndcg@10']:.4f}"
        print(f"| {label} | {shown} | {seconds(place):.1f} s |")


if __name__ == "__main__":
    main()
