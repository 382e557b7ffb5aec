"""Inference from compiled weights against the modules that define the network."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.inference.compiled_weights import compiled, forget
from recbole_bbqrec.generator.inference.decoding import Decoder
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from tests.support.generator import VECTOR_DIM, histories, small_catalogue, small_generator

OPTIONS: list[dict[str, Any]] = [
    {},
    {"history_encoding": "bidirectional", "decoder_start": "token"},
    {"similarity": False, "tie_codes": True, "token_fusion": "sum"},
    {"similarity": False, "history_encoding": "bidirectional"},
    {"item_embedding": True, "n_items": 30, "n_heads": 1, "dropout": 0.2},
    {"history_encoding": "bidirectional", "history_positions": "first", "norm_positions": True},
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
    torch.testing.assert_close(got.table.rows, wanted.table.rows)
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
    decoder = Decoder.after(compiled(generator), memory)
    hidden = [decoder.start().unsqueeze(1)]
    paths = torch.empty(batch, width, 0, 2, dtype=torch.int64)
    rows = torch.zeros(batch, width, dtype=torch.int64)
    cells = Packing(torch.ones(batch, width, dtype=torch.bool))
    for level in range(1, 4):
        codes = torch.randint(0, 3, (batch, width, 2))
        kept = paths.gather(1, rows[:, :, None, None].expand(-1, -1, *paths.shape[2:]))
        paths = torch.cat([kept, codes.unsqueeze(2)], dim=2)
        before = torch.arange(batch).unsqueeze(1) * hidden[-1].shape[1] + rows
        states = decoder.advance(level, codes.flatten(0, 1), before.flatten(), cells)
        hidden.append(cells.unpack(states))
        forced = generator.decoder.every_level(
            memory,
            generator.decoder.keys_values(memory),
            paths.flatten(0, 1),
            cells,
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


def same_states(generator: Any, catalogue: Any, items: Any) -> None:
    wanted = generator.encode(catalogue, items).states
    torch.testing.assert_close(encode(generator, catalogue, items).states, wanted)


def assign(generator: Any) -> None:
    state = {name: value + 0.1 for name, value in generator.state_dict().items()}
    generator.load_state_dict(state, assign=True)


def optimize(fused: bool) -> Any:
    def step(generator: Any) -> None:
        parameters = list(generator.parameters())
        optimizer = torch.optim.AdamW(parameters, 0.1, fused=fused)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    return step


def replace_a_parameter(generator: Any) -> None:
    norm = generator.encoder.norm
    norm.weight = torch.nn.Parameter(norm.weight.detach() * 2)


CHANGES = {
    "in place": lambda g: g.encoder.layers[0].qkv.weight.mul_(2.0),
    "loaded": lambda g: g.load_state_dict({k: v + 0.1 for k, v in g.state_dict().items()}),
    "assigned": assign,
    "optimizer": optimize(False),
    "fused optimizer": optimize(True),
    "new parameter": replace_a_parameter,
    "dtype": lambda g: g.bfloat16().double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_compiled_weights_last_until_the_weights_change(change: Any) -> None:
    torch.manual_seed(3)
    catalogue = small_catalogue()
    generator = small_generator(catalogue)
    items = histories(catalogue, [3], 3)
    first = compiled(generator)
    same_states(generator, catalogue, items)
    assert compiled(generator) is first
    before = encode(generator, catalogue, items).states
    with torch.no_grad():
        change(generator)
    assert compiled(generator) is not first
    same_states(generator, catalogue, items)
    assert not torch.equal(encode(generator, catalogue, items).states, before)
    assert compiled(generator) is compiled(generator)


def test_compiled_weights_follow_the_dtype_and_may_be_forgotten() -> None:
    generator = small_generator(small_catalogue())
    assert compiled(generator).dtype == torch.float64
    assert compiled(generator.float()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(generator).dtype == torch.bfloat16
    first = compiled(generator)
    assert first.dtype == torch.float32
    generator.decoder.norm.weight.data.add_(1.0)  # unseen
    assert compiled(generator) is first
    forget(generator)
    norm = compiled(generator).decoder_norm
    torch.testing.assert_close(norm.weight, generator.decoder.norm.weight)


class Model(GenerativeRecommender):
    """The adapter around a generator, without a configuration or a data set."""

    ITEM_SEQ, ITEM_SEQ_LEN, POS_ITEM_ID, max_seq_length = "items", "lengths", "target", 6

    def __init__(self, generator: Any) -> None:
        torch.nn.Module.__init__(self)
        self.generator = generator


def test_a_model_frees_compiled_weights_when_it_trains_or_moves() -> None:
    generator = small_generator(small_catalogue())
    model = Model(generator).eval()
    for change in (model.train, model.double):
        kept = weakref.ref(compiled(generator))
        assert kept() is not None
        change()
        gc.collect()
        assert kept() is None
        model.eval()


@pytest.mark.parametrize("items", [[[0, 1, 0]], [[1, 0, 2]], [[1] * 7]])
def test_a_model_refuses_bad_histories_before_it_trains(items: Any) -> None:
    model = Model(small_generator(small_catalogue()))
    rows = {"items": torch.tensor(items), "lengths": torch.tensor([1]), "target": 3}
    with pytest.raises(ValueError, match="on the right|max_history is 6"):
        model.calculate_loss(rows)


def test_compiled_weights_go_with_their_generator() -> None:
    generator = small_generator(small_catalogue())
    kept = weakref.ref(compiled(generator))
    copied = copy.deepcopy(generator)
    assert compiled(copied) is not kept()
    del generator
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_gone_wrong_show(name: str, dtype: torch.dtype) -> None:
    """A ReLU that makes 0 of NaN may not hide them."""
    torch.manual_seed(4)
    catalogue = small_catalogue()
    generator = small_generator(catalogue, similarity=False).float()
    with torch.no_grad():
        getattr(generator.encoder.layers[1].feed[0], name)[2] = torch.nan
    items = histories(catalogue, [6] * 8, 6)  # 144 tokens
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert encode(generator, catalogue, items).states.isnan().all()


def test_compiled_weights_are_no_part_of_the_state() -> None:
    generator = small_generator(small_catalogue())
    names = set(generator.state_dict())
    compiled(generator)
    assert set(generator.state_dict()) == names


def test_training_mode_is_refused() -> None:
    catalogue = small_catalogue()
    generator = small_generator(catalogue).train()
    with pytest.raises(ValueError, match="eval"):
        encode(generator, catalogue, torch.tensor([[1]]))
