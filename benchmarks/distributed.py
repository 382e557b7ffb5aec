"""Training steps of both phases in several processes against one process, in the same run.

The processes take turns: process 0 takes steps alone while the others wait, then all take the same
steps together. An epoch is the mean of timed steps times their number. Semantic IDs of phase two
are random.

    torchrun --nproc_per_node=2 benchmarks/distributed.py --data-path <folder that holds Beauty/>
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from typing import Any

import common
import torch
import torch.distributed as dist

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.distributed import group
from recbole_bbqrec.quick_start import build_model, prepare
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.trainer.shared_work import no_tensorboard

TURNS = 3


class Traffic:
    """Bytes of the tensors that this process adds up with the others."""

    def __init__(self) -> None:
        self.bytes = 0
        self.original = dist.all_reduce
        dist.all_reduce = self

    def __call__(self, tensor: torch.Tensor, *rest: Any, **named: Any) -> Any:
        self.bytes += tensor.numel() * tensor.element_size()
        return self.original(tensor, *rest, **named)


def measure(phase: Any, steps: int, traffic: Traffic) -> tuple[float, float, float]:
    """Return seconds a step of one process and of all, and MiB a step that a process adds up."""

    def timed(epoch: int) -> float:
        start = time.perf_counter()
        phase.train_epoch(epoch, lambda terms: None)
        return (time.perf_counter() - start) / steps

    phase.train_epoch(0, lambda terms: None)  # warm up; the codebooks start here
    alone, together = [], []
    for epoch in range(1, TURNS + 1):
        alone.append(group.from_main(partial(timed, epoch)))
        before = traffic.bytes
        together.append(max(group.gathered(timed(epoch))))
    volume = (traffic.bytes - before) / steps / 2**20
    return statistics.median(alone), statistics.median(together), volume


def main() -> None:
    options = common.arguments(__doc__, steps=20, model="BBQRec")
    steps = 3 if options.small else options.steps
    name = "Mini" if options.small else options.dataset
    overrides = {
        "data_path": options.data_path or "dataset", "seed": options.seed, "state": "ERROR",
        "precision": options.precision, "tokenizer_warmup_epochs": 0, "tokenizer_epochs": 100,
        "epochs": 100, "checkpoint_dir": tempfile.gettempdir(), "modalities": ["text"],
    }  # fmt: skip
    with group.processes():
        traffic = Traffic()
        config = BBQRecConfig(options.model, name, overrides=overrides)
        data = prepare(config)
        histories = Histories.from_training_data(data.train_data._dataset)
        with no_tensorboard():
            trainer = get_trainer_class(options.model)(config, build_model(config, data.train_data))
        model = trainer.model
        network = model.build_tokenizer(
            config, data.dataset, histories.trained_items(model.n_items)
        ).to(trainer.device)
        one = trainer._tokenize_phase(network, histories, None)
        model.set_semantic_ids(
            torch.randint(0, model.codebook_size, model.codes.shape),
            torch.randn_like(model.vectors),
        )
        two = trainer._generate_phase(histories, None)
        rows = []
        for title, phase in (("phase one", one), ("phase two", two)):
            n_steps = phase.steps(0)
            phase.batches = common.FirstBatches(phase.batches, steps)
            alone, together, volume = measure(phase, steps, traffic)
            ms, epochs = (1000 * alone, 1000 * together), (alone * n_steps, together * n_steps)
            rows.append((title, *ms, *epochs, alone / together, volume))
        size = group.world_size()
        if group.is_main():
            common.heading(f"{options.model} on {name}: {size} processes against one", options)
            common.table(
                ("phase", "ms a step, one", f"ms, {size}", "s an epoch, one", f"s, {size}",
                 "times faster", "MiB added up a step"),
                rows,
            )  # fmt: skip


if __name__ == "__main__":
    main()
