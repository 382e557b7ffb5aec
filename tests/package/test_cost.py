"""The formulas of ``benchmarks/cost.py`` against torch's counter of FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.network.training_batch import TrainingBatch
from recbole_bbqrec.generator.settings import GeneratorSettings
from tests.support.runs import ROOT

N_ITEMS = 41


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import cost

    return cost


def counted(function: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as flops:
        function()
    return flops.get_total_flops()


@pytest.mark.parametrize("sampling", ["full", "sampled"])
def test_flops_of_a_step(cost: Any, sampling: str) -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 7, (N_ITEMS, 3, 2))
    features = torch.randn(N_ITEMS, 12)
    catalogue = Catalogue.build(codes, torch.randn(N_ITEMS, 10), 7, features=features)
    config = GeneratorSettings(
        n_signals=2, n_items=N_ITEMS, vector_dim=10, feature_dim=12, codebook_size=7, code_dim=7,
        hidden_size=16, n_heads=2, inner_size=24, dropout=0.0, max_history=6,
        item_head_sampling=sampling, item_head_samples=9,
    )  # fmt: skip
    network = Generator(config)
    items = torch.randint(1, N_ITEMS, (6, 5))
    items[2:, 3:] = 0
    targets = torch.where(items > 0, items.roll(1, 1).clamp(min=1), 0)
    torch.manual_seed(1)
    layout = TrainingBatch.of(config, catalogue, items, targets)
    assert layout.paths is not None and layout.steps.grid.index is not None  # of unequal depth
    sample = layout.sample
    batch = cost.Batch(
        histories=6, width=5, cells=len(layout.cells), targets=len(layout.targets),
        rows=len(layout.steps.grid), grid=layout.steps.cells.shape[1],
        open=tuple(len(which) for which in layout.paths.open),
        keys=N_ITEMS - 1 if sample is None else len(sample.held),
        scored=N_ITEMS - 1 if sample is None else len(sample.candidates),
    )  # fmt: skip

    def forward() -> torch.Tensor:
        torch.manual_seed(1)
        return network.loss(catalogue, items, targets)[0]

    with torch.no_grad():
        assert counted(forward) == sum(cost.step_flops(config, batch).values())
    assert counted(lambda: forward().backward()) == cost.training_flops(config, batch)
    expected = sum(p.numel() for p in network.parameters())
    assert sum(cost.parameters(config).values()) == expected


def test_the_table_has_a_row_for_each_machine(cost: Any) -> None:
    rows = cost.rent(cost.default(1_000_000), 5_000_000, 50_000_000, 512, 50)
    shown = " ".join(name for name, _ in rows)
    assert all(word in shown for word in ("1 CPU core", "1 GPU", "8 GPUs", "memory of training"))
    assert all(not value.startswith("-") for _, value in rows)
