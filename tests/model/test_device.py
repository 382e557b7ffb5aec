"""Phase one, whole runs and moves on a device that is not the CPU; every model's: test_contract."""

from __future__ import annotations

import copy
from typing import Any, Callable
from unittest import mock

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.nn.optim import build_optimizer
from recbole_bbqrec.quick_start import build_model, prepare, run
from tests.support.fused import build, history_batch, options, rows_of_test
from tests.support.rqvae import small
from tests.support.runs import TINY
from tests.support.second_device import DEVICE, DeviceTensor, second_device

Values = dict[str, Any]
#: Dropout draws other numbers on a CPU than elsewhere.
_PLAIN = {
    "dropout": 0.0, "encoder_dropout": 0.0, "tokenizer_epochs": 2, "epochs": 1, "num_beams": 12,
}  # fmt: skip
_BBQREC = {**TINY, **_PLAIN, "sequence_dropout": 0.0, "mim_inner_steps": 2}
TWO_PHASE = {
    "BBQRec": _BBQREC,
    "BBQRecNoU": {**_BBQREC, "sequence_encoder": "srgnn", "mask_history": True, "num_beams": 40},
    "BBQRecE": {
        **_BBQREC, "history_encoding": "bidirectional", "generation_loss": "code",
        "item_head": False,
    },
    "TIGER": {**small(TINY), **_PLAIN},
    "LETTER": {**small(TINY), **_PLAIN, "sequence_dropout": 0.0, "cf_epochs": 1},
    "CoST": {**small(TINY), **_PLAIN},
}  # fmt: skip


@pytest.fixture
def device():
    with second_device() as there:
        yield there


def check_same(compute: Callable[[Any, torch.device], Values], model: Any, device: Any) -> None:
    """``compute(model, device)`` gives tensors on the device, with the numbers of the CPU."""
    moved = copy.deepcopy(model).to(device)
    torch.manual_seed(1)
    wanted = compute(model, torch.device("cpu"))
    torch.manual_seed(1)
    found = compute(moved, device)
    assert wanted.keys() == found.keys()
    for name, value in found.items():
        assert isinstance(value, DeviceTensor), name
        torch.testing.assert_close(value.cpu(), wanted[name], rtol=1e-3, atol=1e-5, msg=name)


def stepped(model: Any, loss: Callable[[], Tensor]) -> Values:
    """The loss, the gradients, and the loss after a step of the optimizer."""
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer(parameters.items(), learning_rate=1e-3, weight_decay=0.1)
    before = loss()
    before.backward()
    gradients = {f"of {k}": p.grad for k, p in parameters.items() if p.grad is not None}
    assert gradients
    optimizer.step()
    return {"before": before, **{k: g.clone() for k, g in gradients.items()}, "after": loss()}


# both phases of generative models ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TWO_PHASE))
def test_two_phase_model(name: str, device: torch.device) -> None:
    config = BBQRecConfig(name, "Mini", overrides=TWO_PHASE[name])
    data = prepare(config)
    model = build_model(config, data.train_data)
    dataset = data.train_data._dataset
    histories = Histories.from_training_data(dataset)
    trained = histories.trained_items(model.n_items)
    model.tokenizer = model.build_tokenizer(config, dataset, trained)
    batches = HistoryBatches(histories, batch_size=64, encoding=config["history_encoding"])
    batch, rows = next(iter(batches.epoch(0))), rows_of_test(data)

    def compute(model: Any, where: torch.device) -> Values:
        result, values = _phase_one(model.tokenizer, batch.to(where), where)
        result = model.make_unique(config, result)
        model.set_semantic_ids(result.codes, result.vectors, result.codebooks)
        del model.tokenizer
        model.train()
        values.update(stepped(model, lambda: model.history_loss(batch.to(where))[0]))
        model.eval()
        items, scores = model.recommend(batch.items.to(where), batch.lengths.to(where), 5)
        values.update(codes=model.codes, items=items, scores=scores)
        values["every"] = model.full_sort_predict(rows.to(where))
        values["one"] = model.predict(rows.to(where))
        return values

    check_same(compute, model, device)


def _phase_one(network: Any, batch: Any, where: torch.device) -> tuple[Any, Values]:
    """Values that the network makes of the items, and all it computes on the way there."""
    network.train()
    network.prepare(3)
    items = torch.arange(1, network.n_items, device=where)
    pairs = network.mim_pairs(items)
    values = {"likelihood": network.estimator_loss(pairs)} if pairs else {}
    optimizer = build_optimizer(network.named_parameters(), learning_rate=1e-3, weight_decay=0.0)
    for phase in ("warm-up", "quantizing"):
        if phase == "quantizing":
            network.initialise_codebooks(3)
        terms = network.losses(items, batch.items, batch.targets)
        terms["total"].backward()
        optimizer.step()
        values.update({f"{phase} {name}": value for name, value in terms.items()})
    network.start_of_epoch(torch.Generator().manual_seed(3))
    if network.has_sequence_encoder:
        values["states"] = network.sequence_states(batch.items, network.item_vectors())
    result = network.tokenize()
    return result, {**values, "vectors": result.vectors, "quantized": result.codes}


# whole runs -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BBQRec", "ESASRec"])
def test_run(name: str, device: torch.device, rundir: Any) -> None:
    settings = options(name, dropout=0.0, epochs=1) if name == "ESASRec" else TWO_PHASE[name]
    settings = {**settings, "train_batch_size": 1024}
    usual = BBQRecConfig.__getitem__

    def with_device(config: Any, key: str) -> Any:
        return device if key == "device" else usual(config, key)

    wanted = run(name, "Mini", overrides=settings, saved=False)
    with mock.patch.object(BBQRecConfig, "__getitem__", with_device):
        found = run(name, "Mini", overrides=settings, saved=False)
    assert found["device"] == str(DEVICE)
    # Rounding decides here and there which of two items comes first.
    assert found["test_result"] == pytest.approx(wanted["test_result"], abs=0.01)
    assert found["best_valid_result"] == pytest.approx(wanted["best_valid_result"], abs=0.01)


# moves of a model that has been used ----------------------------------------------------------


def test_catalogue_moves_with_its_model(device: torch.device) -> None:
    config = BBQRecConfig("BBQRec", "Mini", overrides=TWO_PHASE["BBQRec"])
    data = prepare(config)
    model = build_model(config, data.train_data).eval()
    batch = history_batch(data)
    model.set_semantic_ids(torch.randint(0, 32, model.codes.shape), torch.rand_like(model.vectors))

    def scores(where: torch.device | str) -> Tensor:
        return model.to(where).recommend(batch.items.to(where), batch.lengths.to(where), 5)[1].cpu()

    wanted = scores("cpu")
    for where in (device, "cpu"):
        torch.testing.assert_close(scores(where), wanted)
    moved = model.double().catalogue
    assert moved.vectors.dtype == moved.features.dtype == torch.float64


def test_code_gradients_are_those_of_codes_changed_elsewhere(device: torch.device) -> None:
    model, _ = build("VQRec")
    codes = model.item_codes
    codes.make()

    def gradient(where: torch.device | str) -> Tensor:
        codes.to(where).zero_grad()
        vectors = codes.item_vectors()
        weights = torch.arange(float(len(vectors)), device=where)  # tell items apart
        (vectors * weights.unsqueeze(1)).sum().backward()
        return codes.code_embedding.grad.cpu()

    before = gradient(device)
    # Every address on this device is 0: the next codes there are where the first ones were.
    codes.to("cpu").codes.copy_(codes.codes.flip(0))
    after = gradient(device)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, gradient("cpu"))


# tries, and the device itself -----------------------------------------------------------------


@pytest.mark.parametrize("items", [None, [5, 2, 9]])
def test_trie_is_the_same_wherever_its_codes_and_items_are(
    device: torch.device, items: list[int] | None
) -> None:
    codes = torch.randint(0, 3, (12, 3, 2))
    chosen = None if items is None else torch.tensor(items)
    wanted = vars(Trie.build(codes, 3, chosen))
    for places in ((device, device), (device, "cpu"), ("cpu", device)):
        there = None if chosen is None else chosen.to(places[1])
        found = Trie.build(codes.to(places[0]), 3, there)
        assert found.leaf_ptr.device == torch.device(places[0])
        moved = vars(found.to("cpu"))
        torch.testing.assert_close(moved, wanted, rtol=0, atol=0)


def test_device_refuses_what_cuda_refuses(device: torch.device) -> None:
    here, index = torch.randn(4), torch.tensor([2, 0])
    there = here.to(device)
    refused: list[Callable[[], Any]] = [
        lambda: there + here,
        lambda: here[index.to(device)],
        lambda: torch.cat([there, here]),
        lambda: there.index_select(0, index),
        lambda: there.index_put((index,), here[:2]),
        lambda: torch.zeros(()).add_(there.sum()),
        lambda: torch.stack([there[0], here[0]]),
        lambda: torch.randperm(4, generator=torch.Generator(), device=device),
        lambda: there.numpy(),
    ]
    for call in refused:
        with pytest.raises(RuntimeError, match="device|numpy"):
            call()
    torch.testing.assert_close((there + torch.tensor(1.0)).cpu(), here + 1)
    torch.testing.assert_close(there[index].cpu(), here[index])
    torch.testing.assert_close((there @ torch.eye(4, device=device)).cpu(), here)
    there[[0, 1]] = here[:2].to(device)[0]
    assert there.tolist() == [here[0], here[0], here[2], here[3]]
