"""Checkpoints keep the parameters' names and order of the first release."""

from __future__ import annotations

import pytest
import torch

from tests.support.generator import histories, small_catalogue, small_generator

EVERYTHING = {
    "generation_loss": "item", "item_embedding": True, "n_items": 30, "item_head": True,
    "repeat_logit": True, "feature_dim": 4, "encoder_layers": 1, "decoder_layers": 1,
}  # fmt: skip


def pairs(*modules: str) -> list[str]:
    return [f"{module}.{part}" for module in modules for part in ("weight", "bias")]


#: Names in a state dict of version 74c7fe2, in its order, for EVERYTHING.
STORED = [
    "encoder_level", "decoder_level", "head_bias", "head_weight", "repeat",
    "tokens.codes", "tokens.weight", "position.weight", "items.weight", "features.weight",
    *pairs("encoder.0.attention_norm", "encoder.0.qkv", "encoder.0.attention_out"),
    "encoder.0.gate.table",
    *pairs("encoder.0.feed_norm", "encoder.0.feed.0", "encoder.0.feed.3"),
    *pairs("decoder.0.self_norm", "decoder.0.qkv", "decoder.0.self_out", "decoder.0.cross_norm"),
    *pairs("decoder.0.cross_query", "decoder.0.cross_kv", "decoder.0.cross_out"),
    *pairs("decoder.0.feed_norm", "decoder.0.feed.0", "decoder.0.feed.3", "start"),
    *pairs("encoder_input_norm", "decoder_input_norm", "encoder_norm", "decoder_norm"),
    "content.weight",
]  # fmt: skip


def test_a_state_has_the_names_and_the_order_of_the_first_release() -> None:
    generator = small_generator(small_catalogue(feature_dim=4), **EVERYTHING)
    assert list(generator.state_dict()) == STORED
    shapes = [tensor.shape for tensor in generator.state_dict().values()]
    assert [parameter.shape for parameter in generator.parameters()] == shapes
    inside = torch.nn.ModuleDict({"generator": generator})
    assert list(inside.state_dict()) == [f"generator.{name}" for name in STORED]
    names = [name for name, _ in generator.named_parameters(prefix="net")]
    assert names == [f"net.{name}" for name, _ in generator.named_parameters()]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("options", [EVERYTHING, {}, {"tie_codes": True, "similarity": False}])
def test_an_old_state_loads(options: dict, nested: bool) -> None:
    """Every tensor of the state, by its old name, ends up where it belongs."""
    torch.manual_seed(0)
    catalogue = small_catalogue(feature_dim=options.get("feature_dim", 0))
    first, second = (small_generator(catalogue, **options) for _ in range(2))
    items = histories(catalogue, [3, 5], 5)
    values = [float(net.loss(catalogue, items, items)[0].detach()) for net in (first, second)]
    assert values[0] != values[1]
    state = dict(first.state_dict())
    if nested:
        state = {f"generator.{name}": tensor for name, tensor in state.items()}
        torch.nn.ModuleDict({"generator": second}).load_state_dict(state)
    else:
        second.load_state_dict(state)
    assert float(second.loss(catalogue, items, items)[0].detach()) == values[0]


def test_an_old_tensor_lands_in_its_part() -> None:
    generator = small_generator(small_catalogue(feature_dim=4), **EVERYTHING)
    state = {
        name: torch.full_like(t, i) for i, (name, t) in enumerate(generator.state_dict().items())
    }
    generator.load_state_dict(state)
    parts = {
        "encoder_level": generator.encoder.level,
        "decoder_level": generator.decoder.level,
        "head_bias": generator.decoder.head.bias,
        "head_weight": generator.decoder.head.weight,
        "repeat": generator.item_head.repeat.logits,
        "encoder_norm.weight": generator.encoder.norm.weight,
        "decoder_input_norm.bias": generator.decoder.input_norm.bias,
        "start.weight": generator.decoder.start.weight,
        "content.weight": generator.item_head.content.weight,
        "features.weight": generator.encoder.features.weight,
        "encoder.0.qkv.weight": generator.encoder.layers[0].qkv.weight,
        "decoder.0.qkv.weight": generator.decoder.layers[0].qkv.weight,
    }
    for name, parameter in parts.items():
        assert set(parameter.flatten().tolist()) == {STORED.index(name)}, name


def test_a_state_of_another_network_is_refused() -> None:
    generator = small_generator(small_catalogue())
    state = dict(generator.state_dict())
    del state["encoder_level"]
    with pytest.raises(RuntimeError, match="encoder.level"):
        generator.load_state_dict(state)
