"""TIGER: the RQ-VAE, the disambiguation token, and phase one on items alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.tokenizer.base import Tokenization
from recbole_bbqrec.tokenizer.disambiguation import append_disambiguation, disambiguation_codes
from recbole_bbqrec.tokenizer.rqvae.rqvae import RQVAESettings, RQVAETokenizer
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.phases.tokenize_phase import TokenizePhase
from tests.support.rqvae import NO_HISTORIES, check_run, features, small, term_values

TINY_NETWORK = RQVAESettings(
    levels=2, codebook_size=4, codebook_dim=3, encoder_hidden=(6,), commitment_weight=0.3
)


def network(absent=(), config=TINY_NETWORK):
    torch.manual_seed(0)
    return RQVAETokenizer(config, "text", *features(absent=absent))


# the disambiguation token ------------------------------------------------------------------------


def random_codes(seed, n_items=60, levels=3, size=3):
    codes = torch.randint(size, (n_items, levels, 1), generator=torch.Generator().manual_seed(seed))
    codes[0] = 0
    return codes


@pytest.mark.parametrize("seed", range(5))
def test_disambiguation_separates_true_collisions_only(seed):
    codes = random_codes(seed)
    ranks = disambiguation_codes(codes).tolist()
    groups = defaultdict(list)
    for item in range(1, len(codes)):
        groups[tuple(codes[item].flatten().tolist())].append(item)
    assert any(len(items) > 1 for items in groups.values())
    for items in groups.values():
        assert [ranks[item] for item in items] == list(range(len(items)))
    assert ranks[0] == 0


def test_nothing_to_disambiguate():
    codes = torch.arange(8).view(8, 1, 1)
    assert disambiguation_codes(codes).tolist() == [0] * 8
    # [PAD] does not count: item 1 shares its zeros and is unique all the same.
    assert disambiguation_codes(torch.zeros(2, 3, 1, dtype=torch.int64)).tolist() == [0, 0]
    assert disambiguation_codes(torch.zeros(1, 3, 1, dtype=torch.int64)).tolist() == [0]


def tokenization(codes, size):
    n_items, levels, _ = codes.shape
    return Tokenization(
        codes, torch.zeros(n_items, 2), torch.randn(1, levels, size, 2), torch.zeros(n_items, 1, 2)
    )


def test_append_adds_a_level_that_weighs_nothing():
    codes = random_codes(1)
    before = tokenization(codes, size=16)
    after = append_disambiguation(before)
    assert after.codes.shape == (60, 4, 1)
    assert torch.equal(after.codes[:, :3], codes)
    assert len(torch.unique(after.codes[1:].flatten(1), dim=0)) == 59
    assert torch.equal(after.codebooks[:, :3], before.codebooks)
    assert not after.codebooks[:, 3].any()


@pytest.mark.parametrize(("n_alike", "fits"), [(5, True), (6, False)])
def test_a_group_larger_than_the_codebook_is_refused(n_alike, fits):
    codes = torch.zeros(n_alike + 1, 2, 1, dtype=torch.int64)
    if fits:
        assert append_disambiguation(tokenization(codes, 5)).codes[1:, 2, 0].tolist() == [
            0, 1, 2, 3, 4,
        ]  # fmt: skip
        return
    with pytest.raises(UserError, match="6 items share .* only 5 codes.*codebook_size"):
        append_disambiguation(tokenization(codes, 5))


# the network -------------------------------------------------------------------------------------


def test_losses_equal_their_definition():
    net = network(absent=(5, 9)).double()
    net.initialise_codebooks(0)
    net.train()
    items = torch.tensor([3, 5, 7, 9, 11, 3, 0])
    terms = term_values(net, items)
    reconstruction = codebook = commitment = 0.0
    for item in (3, 7, 11):  # 5 and 9 have no features, 3 counts once, 0 is padding
        x = (net.matrix[item] - net.standardizer.mean) * net.standardizer.scale
        z = net.encoder(x)
        residual, total = z, torch.zeros_like(z)
        for level in range(2):
            book = net.quantizer.codebooks[0, level]
            code = book[int((residual - book).pow(2).sum(-1).argmin())]
            codebook += float((residual - code).detach().pow(2).sum()) / 3
            residual, total = residual - code, total + code
        reconstruction += float((net.decoder(total) - x).detach().pow(2).mean())
    commitment = codebook  # the same numbers, different gradients
    assert terms["reconstruction"] == pytest.approx(reconstruction / 3)
    assert terms["codebook"] == pytest.approx(codebook / 3)
    assert terms["commitment"] == pytest.approx(commitment / 3)
    weighted = (reconstruction + codebook + 0.3 * commitment) / 3
    assert terms["total"] == pytest.approx(weighted)


def test_gradients_reach_encoder_and_codes():
    net = network()
    net.initialise_codebooks(0)
    for key, reached in (
        ("reconstruction", {"encoder", "decoder"}),
        ("codebook", {"quantizer"}),
        ("commitment", {"encoder"}),
    ):
        net.zero_grad(set_to_none=True)
        net.losses(torch.arange(41), NO_HISTORIES, NO_HISTORIES)[key].backward()
        touched = {
            name.split(".")[0]
            for name, p in net.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert touched == reached, key


def test_items_without_features_get_the_code_of_the_average_item():
    net = network(absent=(5, 9))
    net.initialise_codebooks(0)
    tokens = net.tokenize()
    assert torch.equal(tokens.codes[5], tokens.codes[9])
    assert torch.equal(net.inputs(torch.tensor([5, 9])), torch.zeros(2, 12))
    assert torch.equal(tokens.vectors, net.item_vectors())
    # The vector is the sum of the item's codes.
    books = tokens.codebooks[0]
    for item in (1, 5, 40):
        codes = tokens.codes[item, :, 0]
        expected = sum(books[level, code] for level, code in enumerate(codes))
        torch.testing.assert_close(tokens.vectors[item], expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [("levels", 0), ("commitment_weight", -1), ("recon_reduction", "median"), ("dropout", 1.0)],
)
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        RQVAESettings(**{field: value})


# phase one on items alone ------------------------------------------------------------------------


class Recorder(RQVAETokenizer):
    """Notes what the phase hands it."""

    def losses(self, items, sequences, targets):
        self.seen.append((items, sequences, targets))
        return super().losses(items, sequences, targets)

    def prepare(self, seed):
        self.prepared.append(seed)


class Batches:
    def __len__(self):
        return 99

    def epoch(self, number):
        raise AssertionError("histories must not be made for a network that uses none")


def test_an_epoch_shows_every_item_once():
    net = Recorder(TINY_NETWORK, "text", *features())
    net.seen, net.prepared = [], []
    config = {
        "device": "cpu", "precision": "float32", "seed": 3, "tokenizer_epochs": 2,
        "tokenizer_stopping_step": 1, "tokenizer_warmup_epochs": 0, "tokenizer_max_collisions": 1,
        "mim_inner_steps": None, "tokenizer_learning_rate": 0.01, "tokenizer_weight_decay": 0.0,
        "tokenizer_batch_size": 16,
    }  # fmt: skip
    phase = TokenizePhase(config, net, Batches(), None, None)
    assert phase.steps(0) == math.ceil(40 / 16) == 3
    for epoch in range(2):
        net.seen.clear()
        steps = []
        phase.train_epoch(epoch, steps.append)
        assert len(steps) == 3
        counts = Counter(torch.cat([items for items, _, _ in net.seen]).tolist())
        assert counts == Counter(range(1, 41))
        assert all(s.numel() == t.numel() == 0 for _, s, t in net.seen)
    assert net.prepared == [3]
    assert phase.validate(1).score is None  # nothing to compare by: the last state is kept


# the model ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trains_saves_and_reloads(rundir, tiny):
    result = run("TIGER", "Mini", overrides=small(tiny))
    state, model = check_run(result)
    ids = SemanticIds.load(result["files"]["semantic_ids"])
    assert ids.signals == ("text",) and ids.codes.shape == (405, 4, 1)
    assert ids.metadata["collisions_before"] > 0, "the fourth token must have something to do"
    assert ids.metadata["collisions_after"] == 0
    shared = Counter(tuple(row) for row in ids.codes[:, :3, 0].tolist())
    for row in ids.codes[:, :, 0].tolist():
        if shared[tuple(row[:3])] == 1:
            assert row[3] == 0
    assert ids.vectors.shape == (405, 8)
    assert model.generator.config.code_dim == tiny["hidden_size"]
    assert not [name for name, _ in model.generator.named_parameters() if ".gate." in name]
    best = state["loops"]["tokenize"]
    assert best["best_epoch"] == 5


@pytest.mark.slow
def test_reassign_quantizes_all_levels(rundir, tiny):
    result = run(
        "TIGER", "Mini",
        overrides=small(tiny, disambiguation="reassign", codebook_levels=3, epochs=1),
    )  # fmt: skip
    ids = SemanticIds.load(result["files"]["semantic_ids"])
    assert ids.codes.shape == (405, 3, 1)
    assert ids.codebooks[0, 2].any()
    assert result["tokenizer"]["collisions_after"] == 0


def test_too_small_a_codebook_says_so(rundir, tiny):
    with pytest.raises(UserError, match="items share one semantic ID"):
        run("TIGER", "Mini", overrides=small(tiny, codebook_size=2, codebook_levels=2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer_modality": "sound"}, "'sound'"),
        ({"codebook_levels": 1}, "codebook_levels"),
        ({"commitment_weight": {"text": 0.2}}, "commitment_weight"),
        ({"tokenizer_warmup_epochs": 6}, "tokenizer_warmup_epochs"),
        ({"disambiguation": "digit"}, "token, reassign"),
    ],
)
def test_options_are_checked(tiny, changes, words):
    with pytest.raises(UserError, match=words):
        BBQRecConfig("TIGER", "Mini", overrides=small(tiny, **changes))


@pytest.mark.slow
def test_another_modality_can_be_quantized(rundir, tiny):
    result = run("TIGER", "Mini", overrides=small(tiny, tokenizer_modality="image", epochs=1))
    assert SemanticIds.load(result["files"]["semantic_ids"]).signals == ("image",)
