"""CoST: quantization by contrast."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.quick_start import run
from recbole_bbqrec.tokenizer.rqvae.cost import CoSTSettings, CoSTTokenizer
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from tests.support.rqvae import NO_HISTORIES, check_run, features, small, term_values

CONFIG = CoSTSettings(
    levels=2, codebook_size=4, codebook_dim=3, encoder_hidden=(6,), temperature=0.2,
    contrastive_weight=0.7, reconstruction_weight=0.4,
)  # fmt: skip


def network(twins=(), absent=(), config=CONFIG):
    """A CoST tokenizer; each pair in ``twins`` has the same features."""
    matrix, present = features(absent=absent)
    for first, second in twins:
        matrix[second] = matrix[first]
    torch.manual_seed(0)
    net = CoSTTokenizer(config, "text", matrix, present).double()
    net.initialise_codebooks(0)
    return net


@torch.no_grad()
def reference(net, items, negatives):
    """Mean InfoNCE, one row at a time; negatives[i] are the other candidates of item i."""
    losses = []
    for item in items:
        x = net.inputs(torch.tensor([item, *negatives[item]]))  # [1 + n, dim]
        decoded = net.decoder(net.quantizer(net.represent(torch.tensor([item]))).quantized[0, 0])
        scores = F.cosine_similarity(decoded, x) / net.temperature
        losses.append(float(torch.logsumexp(scores, 0) - scores[0]))
    return sum(losses) / len(losses)


def test_contrast_equals_its_definition():
    net = network(absent=(4,))
    items = [2, 3, 8]
    negatives = {item: [other for other in items if other != item] for item in items}
    terms = term_values(net, [*items, 4])
    assert terms["contrastive"] == pytest.approx(reference(net, items, negatives))
    weighted = (
        0.7 * terms["contrastive"] + 0.4 * terms["reconstruction"]
        + terms["codebook"] + 0.25 * terms["commitment"]
    )  # fmt: skip
    assert terms["total"] == pytest.approx(weighted)


def test_identical_texts_are_not_each_others_negatives():
    net = network(twins=[(2, 3)])
    negatives = {2: [8], 3: [8], 8: [2]}
    terms = term_values(net, [2, 3, 8])
    assert terms["contrastive"] == pytest.approx(reference(net, [2, 3, 8], negatives))


def test_contrast_reaches_the_encoder_and_not_the_codes():
    net = network()
    net.losses(torch.arange(41), NO_HISTORIES, NO_HISTORIES)["contrastive"].backward()
    assert net.encoder[0].weight.grad.abs().sum() > 0
    assert net.quantizer.codebooks.grad is None


def test_a_batch_without_features_is_harmless():
    net = network(absent=(4, 5))
    terms = net.losses(torch.tensor([4, 5]), NO_HISTORIES, NO_HISTORIES)
    assert float(terms["total"].detach()) == 0
    terms["total"].backward()


def test_by_default_contrast_replaces_reconstruction():
    net = network(
        config=CoSTSettings(levels=2, codebook_size=4, codebook_dim=3, encoder_hidden=(6,))
    )
    terms = term_values(net, range(41))
    rest = terms["contrastive"] + terms["codebook"] + 0.25 * terms["commitment"]
    assert terms["total"] == pytest.approx(rest)


@pytest.mark.slow
def test_trains_saves_and_reloads(rundir, tiny):
    result = run("CoST", "Mini", overrides=small(tiny))
    check_run(result, "contrastive")
    ids = SemanticIds.load(result["files"]["semantic_ids"])
    assert ids.codes.shape == (405, 4, 1) and ids.metadata["collisions_after"] == 0
