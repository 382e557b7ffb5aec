"""LETTER: alignment, diversity, clusters of bounded size, behaviour embeddings, tempered loss."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.sequential_recommender import letter as letter_model
from recbole_bbqrec.model.sequential_recommender.letter import RankingGuidedGenerator
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.tokenizer.rqvae.balanced_kmeans import (
    constrained_assignment,
    constrained_kmeans,
)
from recbole_bbqrec.tokenizer.rqvae.collaborative import NextItemModel, fit_item_embeddings
from recbole_bbqrec.tokenizer.rqvae.letter import (
    LETTERSettings,
    LETTERTokenizer,
    alignment_loss,
    diversity_loss,
    draw_partners,
)
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from tests.support.rqvae import NO_HISTORIES, check_run, features, small, term_values

CONFIG = LETTERSettings(
    levels=2, codebook_size=6, codebook_dim=3, encoder_hidden=(6,), diversity_clusters=2,
    alignment_weight=0.3, diversity_weight=0.2,
)  # fmt: skip
LETTER_SMALL = {"diversity_clusters": 4, "cf_epochs": 2, "sequence_hidden_size": 16}


# constrained clustering --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "sizes"),
    [(12, 4, (3, 3)), (13, 4, (3, 4)), (15, 4, (2, 5)), (5, 5, (1, 9)), (256, 10, (10, 60))],
)
def test_clusters_keep_their_sizes(n, k, sizes):
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
    points[: 3 * n // 4] *= 0.01  # a crowd that plain k-means would leave in one cluster
    labels = constrained_kmeans(points, k, *sizes, seed=0)
    found = torch.bincount(labels, minlength=k)
    assert len(found) == k and int(found.sum()) == n
    assert sizes[0] <= int(found.min()) and int(found.max()) <= sizes[1]
    assert torch.equal(labels, constrained_kmeans(points, k, *sizes, seed=0))


@pytest.mark.parametrize("sizes", [(0, 7), (1, 3), (1, 5), (2, 4), (2, 3)])
@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 2), (6, 3), (7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_assignment_is_the_cheapest_with_those_sizes(n, k, sizes, seed):
    costs = np.random.default_rng(seed).standard_normal((n, k)) * 10.0**seed
    costs[:, 0] -= 10.0**seed  # most points are nearest to one cluster
    feasible = [
        sum(costs[i, c] for i, c in enumerate(choice))
        for choice in itertools.product(range(k), repeat=n)
        if all(sizes[0] <= size <= sizes[1] for size in np.bincount(choice, minlength=k))
    ]
    labels = constrained_assignment(costs, *sizes)
    assert costs[np.arange(n), labels].sum() == pytest.approx(min(feasible))
    found = np.bincount(labels, minlength=k)
    assert sizes[0] <= found.min() and found.max() <= sizes[1]


@pytest.mark.parametrize(("smallest", "largest"), [(2, 9), (0, 1)])
def test_assignment_out_of_reach_is_refused(smallest, largest):
    with pytest.raises(ValueError, match="5 points cannot fill 3 clusters"):
        constrained_assignment(np.zeros((5, 3)), smallest, largest)


@pytest.mark.parametrize(
    ("codes", "clusters", "sizes"),
    [(256, 10, (10, 60)), (32, 4, (4, 24)), (6, 2, (2, 6)), (6, 3, (2, 6)), (512, 2, (10, 256))],
)
def test_sizes_of_the_clusters_of_codes(codes, clusters, sizes):
    assert LETTERSettings(codebook_size=codes, diversity_clusters=clusters).cluster_sizes == sizes


# alignment ---------------------------------------------------------------------------------------


def test_alignment_equals_its_definition():
    q, h = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        scores = [math.exp(float(q[i] @ h[j])) for j in range(5)]
        expected -= math.log(scores[i] / sum(scores)) / 5
    assert float(alignment_loss(q, h, torch.arange(5))) == pytest.approx(expected)


def test_a_repeated_item_is_not_its_own_negative():
    q, h = torch.randn(2, 4, 3, dtype=torch.float64)
    once = alignment_loss(q, h, torch.arange(4))
    rows = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    # Every other item now counts twice, the item itself once.
    scores = q @ h.T
    own = scores.diag()
    others = scores.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf).logsumexp(1)
    expected = (torch.logaddexp(own, others + math.log(2)) - own).mean()
    twice = alignment_loss(q[rows], h[rows], rows)
    assert float(twice) == pytest.approx(float(expected))
    assert float(once) < float(twice)
    # One item alone, however often: nothing to tell it from.
    alone = torch.zeros(3, dtype=torch.int64)
    assert float(alignment_loss(q[alone], h[alone], alone)) == 0


def test_alignment_without_rows_is_zero():
    empty = torch.zeros(0, 3, requires_grad=True)
    loss = alignment_loss(empty, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0


# diversity ---------------------------------------------------------------------------------------


def test_diversity_equals_its_definition():
    book = torch.randn(6, 3, dtype=torch.float64)
    partners, used = torch.tensor([2, 3, 0, 1, 5, 4]), torch.tensor([0, 4, 4, 1])
    expected = 0.0
    for code in used.tolist():
        scores = {j: math.exp(float(book[code] @ book[j])) for j in range(6) if j != code}
        expected -= math.log(scores[int(partners[code])] / sum(scores.values())) / len(used)
    assert float(diversity_loss(book, partners, used)) == pytest.approx(expected)


def expected_diversity(book, clusters, used):
    """Mean over all partners a code may draw."""
    losses = []
    for code in used:
        for partner in range(len(book)):
            if partner != code and clusters[partner] == clusters[code]:
                partners = torch.full((len(book),), partner)
                losses.append((code, float(diversity_loss(book, partners, torch.tensor([code])))))
    by_code = {}
    for code, loss in losses:
        by_code.setdefault(code, []).append(loss)
    return sum(sum(values) / len(values) for values in by_code.values()) / len(by_code)


def test_diversity_of_codes_that_are_all_alike():
    book = torch.ones(8, 4, dtype=torch.float64)
    partners = draw_partners(torch.arange(8) % 2)
    loss = diversity_loss(book, partners, torch.arange(8))
    assert float(loss) == pytest.approx(math.log(7))


@pytest.mark.parametrize("size", [2, 4])
def test_diversity_is_least_when_clusters_are_apart(size):
    """Bounded below by log(size - 1), reached by tight and distant clusters; zero for pairs."""
    clusters = torch.arange(8) // size
    centres = 20 * torch.eye(8 // size, 4, dtype=torch.float64)
    apart = expected_diversity(centres[clusters], clusters, range(8))
    assert apart == pytest.approx(math.log(size - 1), abs=1e-9)
    for seed in range(5):
        book = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).double()
        assert expected_diversity(book, clusters, range(8)) > apart


def test_even_clusters_allow_the_least_diversity_loss():
    """Equal cluster sizes have the lowest bound if items are spread evenly over the codes."""

    def reached(clusters):
        centres = 20 * torch.eye(2, 4, dtype=torch.float64)
        return expected_diversity(centres[clusters], clusters, range(8))

    even = reached(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    assert even < reached(torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]))
    assert even < reached(torch.tensor([0, 0, 1, 1, 1, 1, 1, 1]))


def test_partners_are_other_codes_of_the_cluster():
    clusters = constrained_kmeans(torch.randn(40, 2), 7, 2, 12, seed=1)
    drawn = torch.stack([draw_partners(clusters) for _ in range(300)])  # [300, N]
    code = torch.arange(40)
    assert torch.equal(clusters[drawn], clusters.expand(300, -1))
    assert not (drawn == code).any()
    for index in range(40):
        others = set((clusters == clusters[index]).nonzero().flatten().tolist()) - {index}
        assert set(drawn[:, index].tolist()) == others


# the network -------------------------------------------------------------------------------------


def network(known=None, seed=0):
    matrix, present = features(seed=seed)
    known = torch.ones(41, dtype=torch.bool) if known is None else known
    torch.manual_seed(seed)
    behaviour = torch.randn(41, 3)
    net = LETTERTokenizer(CONFIG, "text", matrix, present, known, lambda device: behaviour)
    net.prepare(0)
    return net, behaviour


def test_terms_and_total():
    net, behaviour = network()
    items = [1, 2, 2, 7]
    assert "diversity" not in term_values(net, items)
    net.initialise_codebooks(0)
    terms = term_values(net, items)
    distinct = torch.tensor([1, 2, 7])
    quantized = net.item_vectors()[distinct]
    expected = F.cross_entropy(quantized @ behaviour[distinct].T, torch.arange(3))
    assert terms["alignment"] == pytest.approx(float(expected), rel=1e-5)
    total = (
        terms["reconstruction"] + terms["codebook"] + 0.25 * terms["commitment"]
        + 0.3 * terms["alignment"] + 0.2 * terms["diversity"]
    )  # fmt: skip
    assert terms["total"] == pytest.approx(total, rel=1e-5)


def test_items_without_behaviour_are_left_out_of_the_alignment():
    known = torch.ones(41, dtype=torch.bool)
    known[[2, 9]] = False
    net, _ = network(known)
    net.initialise_codebooks(0)
    some = term_values(net, [1, 2, 7, 9])["alignment"]
    assert some == pytest.approx(term_values(net, [1, 7])["alignment"])


def test_who_learns_from_what():
    net, _ = network()
    net.initialise_codebooks(0)
    terms = net.losses(torch.arange(41), NO_HISTORIES, NO_HISTORIES)
    terms["diversity"].backward(retain_graph=True)
    assert net.quantizer.codebooks.grad.abs().sum() > 0
    assert net.encoder[0].weight.grad is None
    net.zero_grad(set_to_none=True)
    terms["alignment"].backward()
    assert net.encoder[0].weight.grad.abs().sum() > 0
    assert net.quantizer.codebooks.grad is None


def test_codes_are_clustered_anew_every_epoch_and_saved():
    net, behaviour = network()
    assert not net.clusters.any()
    net.initialise_codebooks(0)
    for level in range(2):
        assert int(torch.bincount(net.clusters[level], minlength=2).min()) >= 2
    with torch.no_grad():
        net.quantizer.codebooks[0, 0] = torch.tensor([0.0, 9, 0, 9, 0, 9]).unsqueeze(1)
    net.train()
    net.losses(torch.arange(41), NO_HISTORIES, NO_HISTORIES)
    net.quantizer.usage += 1  # no code is dead, so none moves
    net.start_of_epoch(torch.Generator().manual_seed(0))
    group = net.clusters[0]
    assert group[0] == group[2] == group[4] != group[1] == group[3] == group[5]
    other, _ = network(seed=1)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.clusters, net.clusters)
    assert torch.equal(other.collaborative, behaviour)


@pytest.mark.parametrize(("field", "value"), [("diversity_clusters", 4), ("alignment_weight", -1)])
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        LETTERSettings(codebook_size=6, **{"diversity_clusters": 2, field: value})


# behaviour embeddings ----------------------------------------------------------------------------


@pytest.mark.slow
def test_behaviour_embeddings_bring_together_items_that_follow_each_other():
    """Users walk within one of two worlds of ten items; the other ten occur in no history."""
    torch.manual_seed(0)
    rows = [torch.randint(0, 10, (8,)) + 1 + 10 * (user % 2) for user in range(120)]
    histories = Histories(torch.cat(rows), torch.arange(121) * 8, torch.arange(120))
    batches = HistoryBatches(histories, batch_size=30, max_length=6, unit="histories")
    model = NextItemModel(31, 8, hidden=8, layers=1, heads=1, max_history=6, dropout=0.0)
    before = model.items.weight.detach().clone()
    vectors = fit_item_embeddings(model, batches, epochs=25, learning_rate=0.02)
    assert vectors.shape == (31, 8) and not vectors[0].any()
    assert not torch.equal(vectors[1:21], before[1:21])
    unit = F.normalize(vectors[1:21], dim=1)
    cosine = unit @ unit.T
    world = torch.arange(20) // 10
    within = world.unsqueeze(1) == world
    assert cosine[within].mean() > cosine[~within].mean() + 0.5


def test_next_item_loss_equals_softmax_over_all_items():
    torch.manual_seed(0)
    model = NextItemModel(9, 4, hidden=4, layers=1, heads=1, max_history=3, dropout=0.0)
    items, targets = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[2, 0, 5], [8, 0, 0]])
    states = model.encoder(model.items(items), items)
    losses = []
    for row, place in ((0, 0), (0, 2), (1, 0)):
        scores = model.items.weight @ states[row, place]
        losses.append(torch.logsumexp(scores[1:], 0) - scores[targets[row, place]])
    torch.testing.assert_close(model(items, targets), torch.stack(losses).mean())


# the tempered loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_temperature_divides_the_training_logits_only(temperature):
    torch.manual_seed(0)
    settings = GeneratorSettings(
        levels=2, codebook_size=5, n_signals=1, code_dim=4, hidden_size=8, n_heads=2,
        encoder_layers=1, decoder_layers=1, inner_size=8, dropout=0.0, max_history=4,
        similarity=False, history_tokens="level", generation_loss="code", item_embedding=False,
        item_head=False, repeat_logit=False,
    )  # fmt: skip
    generator = RankingGuidedGenerator(settings, temperature).double()
    codes = torch.randint(5, (9, 2, 1))
    catalogue = Catalogue.build(codes, None, 5)
    items, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])
    noted = []
    logits = generator.logits
    generator.logits = lambda *arguments: noted.append(logits(*arguments)) or noted[-1]
    generator.train()
    loss, _ = generator.loss(catalogue, items, targets)
    tempered, noted[:] = list(noted), []
    generator.eval()
    generator.loss(catalogue, items, targets)
    expected = 0.0
    for level, plain in enumerate(noted):
        torch.testing.assert_close(tempered[level], plain / temperature)
        expected += F.cross_entropy(plain / temperature, codes[targets[0], level, 0])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))


# the model ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trains_saves_and_reloads(rundir, tiny):
    result = run("LETTER", "Mini", overrides=small(tiny, **LETTER_SMALL))
    check_run(result)
    ids = SemanticIds.load(result["files"]["semantic_ids"])
    assert ids.codes.shape == (405, 4, 1) and ids.codebooks[0, 3].any()
    assert ids.metadata["collisions_after"] == 0


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_behaviour_embeddings(rundir, tiny, monkeypatch):
    options = small(tiny, **LETTER_SMALL, epochs=1)
    whole = run("LETTER", "Mini", overrides=options)

    class Interrupted(Exception):
        pass

    def stop(self):
        stats = original(self)
        stop.calls += 1
        if stop.calls == 4:
            raise Interrupted
        return stats

    original, stop.calls = LETTERTokenizer.end_of_epoch, 0
    monkeypatch.setattr(LETTERTokenizer, "end_of_epoch", stop)
    with pytest.raises(Interrupted):
        run("LETTER", "Mini", overrides=options)
    monkeypatch.setattr(LETTERTokenizer, "end_of_epoch", original)
    monkeypatch.setattr(letter_model, "fit_item_embeddings", None)  # must not be needed again
    resumed = run("LETTER", "Mini", overrides={**options, "resume": "auto"})
    assert resumed["test_result"] == whole["test_result"]
    first, second = (SemanticIds.load(r["files"]["semantic_ids"]) for r in (whole, resumed))
    assert torch.equal(first.codes, second.codes) and torch.equal(first.vectors, second.vectors)


@pytest.mark.slow
def test_behaviour_embeddings_from_a_file(rundir, tiny, monkeypatch):
    monkeypatch.setattr(letter_model, "fit_item_embeddings", None)  # must not be needed
    lines = (Path(tiny["data_path"]) / "Mini" / "Mini.titles.tsv").read_text().splitlines()
    tokens = [line.split("\t")[0] for line in lines[1:]]
    rng = np.random.default_rng(0)
    np.save(rundir / "Mini.cf.npy", rng.standard_normal((len(tokens), 8)).astype(np.float32))
    (rundir / "Mini.cf.items.txt").write_text("\n".join(tokens) + "\n")
    options = small(tiny, **LETTER_SMALL, epochs=1, cf_embedding_path=str(rundir / "Mini.cf.npy"))
    result = run("LETTER", "Mini", overrides=options)
    assert result["tokenizer"]["collisions_after"] == 0
    with pytest.raises(UserError, match="8 columns; expected 16"):
        run("LETTER", "Mini", overrides={**options, "codebook_dim": 16})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diversity_clusters": 17}, "diversity_clusters"),
        ({"generation_temperature": 0}, "generation_temperature"),
        ({"cf_embedding_path": "cf.npy"}, "cf_embedding_path"),
        ({"sequence_hidden_size": 17}, "sequence_hidden_size"),
        ({"tokenizer_modality": "sound"}, "'sound'"),
    ],
)
def test_options_are_checked(tiny, changes, words):
    with pytest.raises(UserError, match=words):
        BBQRecConfig("LETTER", "Mini", overrides=small(tiny, **{**LETTER_SMALL, **changes}))
