"""A log of any size: seconds and peak memory of mapping, loading, training and evaluating.

Each stage runs in a process of its own, so that its peak is not another's; imports are not counted
in the seconds, but in the memory. The log is drawn (benchmarks/large_events.py), and so are the
semantic IDs, which phase two is given. The network is BBQRec on the item's ID alone with the code
loss: the item head and its neighbours are off (benchmarks/scale.py and cost.py have theirs), and so
is the item embedding, whose optimizer alone keeps 1 KiB an item.

    python benchmarks/large_data.py --events 50000000 --folder /tmp/large --threads 1
    python benchmarks/large_data.py --folder /tmp/large --layout recbole --stages draw,load
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from large_events import name_of, write_log

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.layout.event_files import event_store
from recbole_bbqrec.data.loaders import get_dataloader
from recbole_bbqrec.quick_start import Prepared, build_model, prepare
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer

OPTIONS: dict[str, Any] = {
    "modalities": [],
    "codebook_dim": 32,
    "generation_loss": "code",
    "item_head": False,
    "repeat_logit": False,
    "item_embedding": False,
    "precision": "float32",
    "show_progress": False,
    "save_data": False,
}


def config_of(options: Any, **more: Any) -> BBQRecConfig:
    folder = Path(options.folder)
    places = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
    of_run = {"num_threads": options.threads or 1, "data_layout": options.layout}
    overrides = {**OPTIONS, **places, **of_run, **more}
    return BBQRecConfig("BBQRec", name_of(options.events), overrides=overrides)


def measured(stage: Any, options: Any) -> dict[str, Any]:
    """Run a stage in this fresh process: its seconds, peak MiB and findings."""
    common.start(options)
    start = time.perf_counter()
    found = stage(options) or {}
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": common._status("VmHWM"), **found}


def draw(options: Any) -> dict[str, Any]:
    path = write_log(Path(options.folder), options.events, options.seed)
    return {"what": f"{path.stat().st_size / 2**20:.0f} MiB"}


def map_events(options: Any) -> dict[str, Any]:
    shutil.rmtree(Path(options.folder) / ".mapped", ignore_errors=True)
    store = event_store(config_of(options))
    folder = Path(options.folder) / ".mapped"
    size = sum(file.stat().st_size for file in folder.rglob("*.npy")) / 2**20
    facts = store.facts
    return {
        "what": f"{facts['events']:,} events, {facts['users']:,} users and {facts['items']:,} "
        f"items of the 5-core; {size:.0f} MiB of arrays"
    }


def load(options: Any) -> dict[str, Any]:
    data = prepare(config_of(options))
    return {"what": f"split {data.split_hash}, {data.split['test_users']:,} test users"}


def ids_file(options: Any) -> Path:
    return Path(options.folder) / f"{name_of(options.events)}.ids.safetensors"


def draw_ids(options: Any) -> dict[str, Any]:
    """Give every item another code of three levels."""
    data = prepare(config_of(options))
    rng = np.random.default_rng(options.seed)
    n = data.dataset.item_num - 1
    number = rng.choice(common.CODES**common.LEVELS, n, replace=False)
    codes = np.stack([number // common.CODES**level % common.CODES for level in (2, 1, 0)], axis=1)
    vectors = rng.standard_normal((n, OPTIONS["codebook_dim"]), dtype=np.float32)
    SemanticIds(
        item_tokens=tuple(data.dataset.item_tokens[1:]), codes=torch.from_numpy(codes[..., None]),
        vectors=torch.from_numpy(vectors), codebooks=None, signals=("id",),
        metadata={"codebook_size": common.CODES, "split_hash": data.split_hash},
    ).save(ids_file(options))  # fmt: skip
    return {"what": f"{n:,} items"}


def _model(options: Any) -> tuple[Prepared, Any]:
    data = prepare(config_of(options, tokenizer_path=str(ids_file(options))))
    trainer = TwoPhaseTrainer(data.config, build_model(data.config, data.train_data))
    trainer.use_data(data.identity)
    trainer._tokenize(data.dataset, histories_of(data), None)
    return data, trainer


def histories_of(data: Prepared) -> Histories:
    return Histories.from_training_data(data.train_data._dataset)


def train(options: Any) -> dict[str, Any]:
    data, trainer = _model(options)
    phase = trainer._generate_phase(histories_of(data), None)
    steps = len(phase.batches)
    phase.batches = common.FirstBatches(phase.batches, options.steps)
    begin = time.perf_counter()
    phase.train_epoch(0, lambda terms: None)
    seconds = time.perf_counter() - begin
    return {
        "what": f"{options.steps} of {steps:,} steps in {seconds:.0f} s, "
        f"{phase.batches.batches.n_targets:,} targets"
    }


def evaluate(options: Any) -> dict[str, Any]:
    data, trainer = _model(options)
    part = data.test_data._dataset
    some = part.copy(part.inter_feat[: options.users])
    loader = get_dataloader(data.config, "test")(data.config, some, None)
    trainer.eval_collector.data_collect(data.train_data)
    begin = time.perf_counter()
    trainer.evaluate(loader, load_best_model=False)
    return {"what": f"{len(some):,} users in {time.perf_counter() - begin:.0f} s, beam 50"}


STAGES = (draw, map_events, load, draw_ids, train, evaluate)


def main() -> None:
    names = ",".join(stage.__name__ for stage in STAGES)
    options = common.arguments(
        __doc__, events=0, folder="", steps=50, users=10_000, stages=names, layout="mapped"
    )
    options.events = options.events or (20_000 if options.small else 1_000_000)
    options.folder = options.folder or "large"
    if options.small:
        options.steps, options.users = 3, 100
    common.heading(f"{options.events:,} events, {options.layout}", options)
    rows = []
    for stage in (stage for stage in STAGES if stage.__name__ in options.stages.split(",")):
        found = common.in_child(measured, stage, options)
        rows.append((stage.__name__, found["seconds"], found["peak"], found.get("what", "")))
    common.table(("stage", "seconds", "peak MiB", ""), rows)


if __name__ == "__main__":
    main()
