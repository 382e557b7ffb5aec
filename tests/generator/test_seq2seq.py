from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from recbole_bbqrec.generator.batch.checks import check_histories, check_targets
from recbole_bbqrec.generator.batch.packing import Packing, slots_of
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from tests.support.generator import histories, small_catalogue, small_generator


@pytest.mark.parametrize("similarity", [True, False])
@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
def test_encoding_does_not_depend_on_padding_or_batch(encoding: str, similarity: bool) -> None:
    torch.manual_seed(0)
    catalogue = small_catalogue()
    generator = small_generator(catalogue, history_encoding=encoding, similarity=similarity)
    items = histories(catalogue, [4, 2, 1], 6)
    together = generator.encode(catalogue, items).padded()
    for b, length in enumerate([4, 2, 1]):
        alone = generator.encode(catalogue, items[b : b + 1, :length]).padded()
        torch.testing.assert_close(together[b, : length * 3], alone[0])
        assert not together[b, length * 3 :].any()


@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("similarity", [True, False])
@pytest.mark.parametrize("start", ["history", "token"])
def test_one_causal_pass_equals_encoding_every_prefix(
    loss: str, similarity: bool, start: str
) -> None:
    torch.manual_seed(1)
    catalogue = small_catalogue()
    generator = small_generator(
        catalogue, generation_loss=loss, similarity=similarity, decoder_start=start
    )
    items = histories(catalogue, [5, 3], 6)
    targets = torch.tensor([[0, 4, 0, 28, 9, 0], [3, 12, 7, 0, 0, 0]])
    parts = []
    for b, t in targets.nonzero().tolist():
        alone = torch.zeros(1, t + 1, dtype=torch.int64)
        alone[0, t] = targets[b, t]
        parts.append(generator.loss(catalogue, items[b : b + 1, : t + 1], alone)[0])
    torch.testing.assert_close(generator.loss(catalogue, items, targets)[0], sum(parts) / 6)


def test_causal_and_bidirectional_encodings_compared() -> None:
    """Equal for one item; with more, a single layer agrees at the last item only.

    The last item sees the whole history either way. In one layer its keys and values are the
    inputs themselves, the same in both; a second layer reads states that differ.
    """
    torch.manual_seed(2)
    catalogue = small_catalogue()
    options = {"encoder_layers": 1, "history_positions": "first"}
    causal = small_generator(catalogue, **options)
    both = small_generator(catalogue, history_encoding="bidirectional", **options)
    both.load_state_dict(causal.state_dict())
    one, four = (histories(catalogue, [n, n], n) for n in (1, 4))
    torch.testing.assert_close(
        causal.encode(catalogue, one).states, both.encode(catalogue, one).states
    )
    a, b = (g.encode(catalogue, four).padded() for g in (causal, both))
    torch.testing.assert_close(a[:, -3:], b[:, -3:])
    assert not torch.allclose(a[:, :-3], b[:, :-3])


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_projected_tables_equal_fusing_then_mapping(fusion: str) -> None:
    torch.manual_seed(3)
    catalogue = small_catalogue(signals=3)
    tokens = small_generator(catalogue, token_fusion=fusion).encoder.tokens
    codes = catalogue.codes[1:8]  # [7, L, M]
    rows = []
    for item in codes:
        for level, token in enumerate(item):
            parts = [tokens.codes[m, level, c] for m, c in enumerate(token)]
            if fusion == "concat":
                rows.append(torch.cat(parts) @ tokens.weight.flatten(0, 1))
            else:
                rows.append(torch.stack(parts).sum(0) @ tokens.weight[0])
    wanted = torch.stack(rows).view(7, 3, -1)
    table = tokens.project()
    torch.testing.assert_close(table.embed(codes), wanted)
    torch.testing.assert_close(table.embed(codes[:, 1:2], first_level=1), wanted[:, 1:2])
    torch.testing.assert_close(
        table.output_weight(1).view(3, 3, -1)[2, 1],
        tokens.codes[2, 1, 1] @ tokens.weight[-1],
    )


@pytest.mark.parametrize("shared", [True, False])
def test_inheriting_phase_one_codes(shared: bool) -> None:
    catalogue = small_catalogue()
    tokens = small_generator(catalogue).encoder.tokens
    vectors = torch.randn(3, 3, 5) if shared else torch.randn(2, 3, 3, 5)
    tokens.load_codes(vectors)
    for signal in range(2):
        wanted = vectors if shared else vectors[signal]
        torch.testing.assert_close(tokens.codes[signal], wanted.double())
    with pytest.raises(ValueError, match="expected"):
        tokens.load_codes(torch.randn(3, 3, 4))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"generation_loss": "item"},
        {"history_encoding": "bidirectional", "token_fusion": "sum"},
        {"similarity": False, "tie_codes": True},
        {"item_embedding": True, "n_items": 30, "dropout": 0.2},
    ],
)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    torch.manual_seed(4)
    catalogue = small_catalogue()
    generator = small_generator(catalogue, **options).train()
    items = histories(catalogue, [6, 6, 2], 6)
    targets = torch.zeros_like(items)
    targets[:2, 5], targets[2, 1] = torch.tensor([4, 11]), 7
    generator.loss(catalogue, items, targets)[0].backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_similarity_reaches_the_output_and_vectors_stay_frozen() -> None:
    torch.manual_seed(5)
    catalogue = small_catalogue()
    generator = small_generator(catalogue)
    items = histories(catalogue, [4], 4)
    other = Catalogue.build(catalogue.codes, torch.randn(30, 6).double(), 3)
    a, b = (generator.encode(c, items).states for c in (catalogue, other))
    assert not torch.allclose(a, b)
    assert catalogue.vectors is not None and not catalogue.vectors.requires_grad
    with pytest.raises(ValueError, match="item vectors"):
        generator.encode(Catalogue.build(catalogue.codes, None, 3), items)


@pytest.mark.slow
def test_the_network_can_learn_to_copy_the_last_item() -> None:
    """The target is the prefix's last item: the decoder must find the end of each prefix."""
    torch.manual_seed(6)
    catalogue = small_catalogue(12, codes=4, duplicates=0)
    catalogue = Catalogue.build(catalogue.codes, torch.randn(12, 6), 4)
    generator = Generator(
        GeneratorSettings(
            n_signals=2,
            vector_dim=6,
            levels=3,
            codebook_size=4,
            code_dim=16,
            max_history=6,
            hidden_size=32,
            n_heads=2,
            encoder_layers=1,
            decoder_layers=1,
            inner_size=32,
            dropout=0.0,
            similarity_buckets=10,
            history_tokens="level",
            generation_loss="code",
            item_embedding=False,
            item_head=False,
            repeat_logit=False,
        )  # fmt: skip
    )
    optimizer = torch.optim.Adam(generator.parameters(), 5e-3)
    for _ in range(250):
        items = histories(catalogue, [6] * 16, 6)
        loss, _ = generator.loss(catalogue, items, items)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1.0  # 8.3 for uniform guesses over codes


@pytest.mark.parametrize("full", [True, False])
def test_packing_round_trip(full: bool) -> None:
    used = torch.tensor([[True, True], [full, True], [True, full]])
    cells = Packing(used)
    grid = torch.randn(3, 2, 4) * used[..., None]
    assert len(cells) == int(used.sum())
    torch.testing.assert_close(cells.pack(grid), grid[used])
    torch.testing.assert_close(cells.unpack(cells.pack(grid)), grid)


def test_slots() -> None:
    used = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]).bool()
    column, filled = slots_of(used)
    assert column.tolist() == [[1, 3], [2, 0], [0, 0]]
    assert filled.tolist() == [[True, True], [True, False], [False, False]]


@pytest.mark.parametrize(
    "items, targets, encoding, message",
    [
        ([[1, 2]], [[0, 0]], "causal", "no targets"),
        ([[1, 0]], [[0, 3]], "causal", "padded position"),
        ([[0, 1]], [[0, 3]], "causal", "on the right"),
        ([[0, 0]], [[0, 0]], "causal", "no targets"),
        ([[1] * 7], [[1] * 7], "causal", "max_history"),
        ([[1, 2]], [[3, 0]], "bidirectional", "one target"),
        ([[1, 2]], [[3, 3]], "bidirectional", "one target"),
    ],
)
def test_bad_batches(items: Any, targets: Any, encoding: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_targets(torch.tensor(items), torch.tensor(targets), encoding)
        check_histories(torch.tensor(items), 6)


def test_good_batches() -> None:
    items = torch.tensor([[1, 2, 0], [3, 0, 0]])
    check_histories(items, 3)
    check_targets(items, torch.tensor([[0, 5, 0], [0, 0, 0]]), "causal")
    check_targets(items, torch.tensor([[0, 5, 0], [4, 0, 0]]), "bidirectional")


@pytest.mark.parametrize("items", [[[0, 1]], [[0, 0]], [[1] * 7]])
def test_bad_histories_are_refused_at_inference(items: Any) -> None:
    catalogue = small_catalogue()
    generator = small_generator(catalogue)
    for search in (encode, partial(rank, num_beams=3, dtype=torch.float32)):
        with pytest.raises(ValueError, match="on the right|max_history is 6"):
            search(generator, catalogue, torch.tensor(items))


@pytest.mark.parametrize(
    "field, value, others",
    [
        ("levels", 0, {}),
        ("hidden_size", 30, {}),
        ("dropout", 1.0, {}),
        ("generation_loss", "token", {}),
        ("history_encoding", "left", {}),
        ("history_positions", "last", {}),
        ("label_smoothing", 0.1, {}),
        ("vector_dim", 0, {}),
        ("n_items", 1, {}),
        ("initializer_range", 0.0, {}),
    ],
)
def test_config_names_the_field_and_the_value(field: str, value: Any, others: Any) -> None:
    settings = {"n_signals": 2, "vector_dim": 6, "n_items": 9, **others}
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        GeneratorSettings(**{**settings, field: value})
