"""Inference from a plan against the modules that define the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.inference.compiled_weights import plan_of
from recbole_bbqrec.generator.inference.decoding import Decoder
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.items.catalogue import Catalogue
from tests.support.generator import VECTOR_DIM, histories, small_catalogue, small_generator

OPTIONS: list[dict[str, Any]] = [
    {},
    {"history_encoding": "bidirectional", "decoder_start": "token"},
    {"similarity": False, "tie_codes": True, "token_fusion": "sum"},
    {"similarity": False, "history_encoding": "bidirectional"},
    {"item_embedding": True, "n_items": 30, "n_heads": 1, "dropout": 0.2},
    {"feature_dim": 4},
    {"history_tokens": "item", "feature_dim": 2},
    {"history_tokens": "item", "similarity": False, "history_encoding": "bidirectional"},
    {"item_embedding": True, "n_items": 30, "feature_dim": 3},
]


@pytest.mark.parametrize("lengths", [[4, 1, 6, 3], [5, 5], [1]])
@pytest.mark.parametrize("options", OPTIONS)
def test_encoding_equals_the_modules(options: dict[str, Any], lengths: list[int]) -> None:
    torch.manual_seed(0)
    catalogue = small_catalogue(feature_dim=options.get("feature_dim", 0))
    generator = small_generator(catalogue, **options)
    items = histories(catalogue, lengths, max(lengths))
    wanted, got = generator.encode(catalogue, items), encode(generator, catalogue, items)
    assert not got.states.requires_grad
    torch.testing.assert_close(got.states, wanted.states, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(got.table, wanted.table)
    assert got.lengths.tolist() == lengths


@pytest.mark.parametrize("lengths", [[4, 1, 6], [5, 5, 5]])
@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_one_level_at_a_time_equals_teacher_forcing(
    options: dict[str, Any], lengths: list[int]
) -> None:
    """Beams that fork, merge and change their order, four levels deep."""
    torch.manual_seed(1)
    catalogue = small_catalogue(levels=4, feature_dim=options.get("feature_dim", 0))
    generator = small_generator(catalogue, **options)
    memory = generator.encode(catalogue, histories(catalogue, lengths, max(lengths)))
    batch, width = len(lengths), 3
    decoder = Decoder(plan_of(generator), memory)
    hidden = [decoder.start()]
    paths = torch.empty(batch, width, 0, 2, dtype=torch.int64)
    rows = torch.zeros(batch, width, dtype=torch.int64)
    for level in range(1, 4):
        codes = torch.randint(0, 3, (batch, width, 2))
        kept = paths.gather(1, rows[:, :, None, None].expand(-1, -1, *paths.shape[2:]))
        paths = torch.cat([kept, codes.unsqueeze(2)], dim=2)
        hidden.append(decoder.advance(level, codes, rows))
        forced = generator.decode(
            memory,
            generator.memory_keys_values(memory),
            paths.flatten(0, 1),
            Packing(torch.ones(batch, width, dtype=torch.bool)),
            memory.lengths[:, None] - 1,
        ).unflatten(0, (batch, width))  # [B, W, level + 1, d]
        torch.testing.assert_close(hidden[level], forced[:, :, -1], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(hidden[0], forced[:, :1, 0], atol=1e-12, rtol=1e-12)
        logits = generator.logits(memory, forced[:, :, -1], level)
        torch.testing.assert_close(decoder.logits(hidden[level], level), logits)
        rows = torch.randint(0, width, (batch, width))


def test_bfloat16_stays_near_float32() -> None:
    torch.manual_seed(2)
    catalogue = small_catalogue()
    catalogue = Catalogue.build(catalogue.codes, torch.randn(30, VECTOR_DIM), 3)
    generator = small_generator(catalogue).float()
    items = histories(catalogue, [5, 2], 5)
    wanted = generator.encode(catalogue, items).states.detach()
    with torch.autocast("cpu", torch.bfloat16):
        states = encode(generator, catalogue, items).states
    assert states.dtype == torch.bfloat16
    assert float((states - wanted).norm() / wanted.norm()) < 0.03


def test_a_plan_lasts_until_the_weights_change() -> None:
    torch.manual_seed(3)
    catalogue = small_catalogue()
    generator = small_generator(catalogue)
    items = histories(catalogue, [3], 3)
    first = plan_of(generator)
    assert plan_of(generator) is first
    with torch.no_grad():
        generator.encoder[0].qkv.weight.mul_(2.0)
    assert plan_of(generator) is not first
    torch.testing.assert_close(
        encode(generator, catalogue, items).states, generator.encode(catalogue, items).states
    )
    state = {name: value + 0.1 for name, value in generator.state_dict().items()}
    second = plan_of(generator)
    generator.load_state_dict(state)
    assert plan_of(generator) is not second
    generator.decoder_norm.weight.data.add_(1.0)  # unseen, but training forgets the plan
    third = plan_of(generator.train().eval())
    torch.testing.assert_close(third.decoder_norm.weight, generator.decoder_norm.weight)
    assert plan_of(generator.float()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert plan_of(generator).dtype == torch.bfloat16
    assert plan_of(generator).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_gone_wrong_show(name: str, dtype: torch.dtype) -> None:
    """A ReLU that makes 0 of NaN may not hide them."""
    torch.manual_seed(4)
    catalogue = small_catalogue()
    generator = small_generator(catalogue, similarity=False).float()
    with torch.no_grad():
        getattr(generator.encoder[1].feed[0], name)[2] = torch.nan
    items = histories(catalogue, [6] * 8, 6)  # 144 tokens
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert encode(generator, catalogue, items).states.isnan().all()


def test_the_plan_is_no_part_of_the_state() -> None:
    generator = small_generator(small_catalogue())
    names = set(generator.state_dict())
    plan_of(generator)
    assert set(generator.state_dict()) == names


def test_training_mode_is_refused() -> None:
    catalogue = small_catalogue()
    generator = small_generator(catalogue).train()
    with pytest.raises(ValueError, match="eval"):
        encode(generator, catalogue, torch.tensor([[1]]))
