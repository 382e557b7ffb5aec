"""MISSRec: clustering, interests of a user, fused candidates, regulariser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.model.parts import interests
from recbole_bbqrec.model.parts.interests import dpc_knn, first_occurrences
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from tests.support.fused import build, options

# clustering -------------------------------------------------------------------------------------


def brute_force_dpc(points: np.ndarray, n_clusters: int, k: int) -> np.ndarray:
    """Density peaks by loops over pairs, float64."""
    n = len(points)
    distance = np.array([[np.linalg.norm(a - b) for b in points] for a in points])
    density = np.array(
        [np.exp(-np.mean(np.sort(np.delete(distance[i], i))[:k] ** 2)) for i in range(n)]
    )
    separation = np.zeros(n)
    for i in range(n):
        denser = [j for j in range(n) if (density[j], -j) > (density[i], -i)]
        separation[i] = min(distance[i, j] for j in denser) if denser else distance[i].max()
    centres = np.argsort(-density * separation, kind="stable")[:n_clusters]
    cluster = np.array([int(np.argmin(distance[i, centres])) for i in range(n)])
    cluster[centres] = np.arange(n_clusters)
    return cluster


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_clusters", "k"), [(1, 3), (7, 5), (20, 2), (40, 100)])
@pytest.mark.parametrize("cells", [1 << 24, 90])
def test_clustering_equals_brute_force(seed, n_clusters, k, cells, monkeypatch):
    monkeypatch.setattr(interests, "_BLOCK_CELLS", cells)  # 90: blocks of one or two rows
    points = np.random.default_rng(seed).standard_normal((40, 3))
    found = dpc_knn(torch.from_numpy(points), n_clusters, k)
    assert found.tolist() == brute_force_dpc(points, n_clusters, min(k, 39)).tolist()


def test_planted_clusters_are_found():
    rng = np.random.default_rng(0)
    middle = np.eye(5) * 10
    points = np.concatenate([m + 0.3 * rng.standard_normal((30, 5)) for m in middle])
    found = dpc_knn(torch.from_numpy(points).float(), 5, 5).view(5, 30)
    assert bool((found == found[:, :1]).all())
    assert len(set(found[:, 0].tolist())) == 5


@pytest.mark.parametrize("n_clusters", [1, 3, 6])
def test_equal_points_leave_no_cluster_empty(n_clusters):
    found = dpc_knn(torch.ones(6, 2), n_clusters, 2)
    assert sorted(set(found.tolist())) == list(range(n_clusters))


def test_one_point_is_one_cluster():
    assert dpc_knn(torch.ones(1, 2), 1, 3).tolist() == [0]


@pytest.mark.parametrize(("n_clusters", "k"), [(0, 1), (5, 1), (2, 0)])
def test_clustering_refuses_numbers_out_of_range(n_clusters, k):
    with pytest.raises(ValueError, match="dpc_knn needs"):
        dpc_knn(torch.ones(4, 2), n_clusters, k)


def test_first_occurrences_against_a_loop():
    labels = torch.randint(0, 4, (50, 9))
    for row, found in zip(labels.tolist(), first_occurrences(labels).tolist()):
        assert found == [label not in row[:t] for t, label in enumerate(row)]


# interests --------------------------------------------------------------------------------------


@pytest.fixture
def model():
    built, _ = build("MISSRec", encoder_layers=2)
    torch.manual_seed(1)
    for module in built.modules():  # far from the start, where little depends on anything
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
    built.update_interests()
    return built


def test_interests_belong_to_items_with_features(model):
    some = model.features.present.any(1)
    assert bool((model.interest_of[some] > 0).all())
    assert int(model.interest_of[0]) == 0
    assert set(model.interest_of[some].tolist()) == set(range(1, model.n_interests + 1))
    assert model.n_interests == round(0.2 * int(some.sum()))


def test_interest_embeddings_are_means_over_items_and_modalities(model):
    representations = model.representations()
    found = model.interest_embeddings(representations)
    for interest in (1, 2, model.n_interests):
        vectors = []
        for item in (model.interest_of == interest).nonzero().flatten().tolist():
            own = model.features.present[item]  # [2]
            vectors.append(representations[item, 1:][own].mean(0))
        torch.testing.assert_close(found[interest], torch.stack(vectors).mean(0))


def test_an_interest_is_seen_once_however_often_it_occurs(model):
    first, again = (model.interest_of == model.interest_of[3:].mode().values).nonzero()[:2, 0]
    other = next(
        i for i in range(1, model.n_items)
        if model.interest_of[i] not in (0, int(model.interest_of[first]))
    )  # fmt: skip
    representations = model.representations()
    once, there = model.encode_interests(torch.tensor([[first, other]]), representations)
    twice, marks = model.encode_interests(torch.tensor([[first, again, other]]), representations)
    assert there.tolist() == [[True, True, True]]
    assert marks.tolist() == [[True, True, False, True]]
    torch.testing.assert_close(twice[marks], once[there])
    # Interests are a set: their order does not matter.
    back, _ = model.encode_interests(torch.tensor([[other, first]]), representations)
    torch.testing.assert_close(back[:, [0, 2, 1]], once)


def test_the_decoder_reads_the_interests(model):
    items = torch.tensor([[3, 4, 5]])
    representations = model.representations()
    memory, exists = model.encode_interests(items, representations)
    states = model.decode(items, representations, memory, exists)
    other = model.decode(items, representations, memory + 1, exists)
    assert not torch.allclose(states, other)
    hidden = exists.clone()
    hidden[:, 1:] = False
    memory_changed = memory.clone()
    memory_changed[:, 1:] += 1
    torch.testing.assert_close(
        model.decode(items, representations, memory_changed, hidden),
        model.decode(items, representations, memory, hidden),
    )


def test_the_decoder_reads_the_whole_history_and_no_padding(model):
    representations = model.representations()
    items = torch.tensor([[3, 4, 5]])
    memory, exists = model.encode_interests(items, representations)
    first = model.decode(items, representations, memory, exists)[:, 0]
    later = model.decode(torch.tensor([[3, 4, 6]]), representations, memory, exists)[:, 0]
    assert not torch.allclose(first, later)
    padded = model.decode(torch.tensor([[3, 4, 5, 0]]), representations, memory, exists)
    torch.testing.assert_close(padded[:, 0], first)


def test_history_without_any_interest_has_finite_scores(model):
    model.interest_of[7] = 0
    states = model.states(torch.tensor([[7, 0, 0]]))
    assert bool(torch.isfinite(states).all())


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_clusters_are_renewed_on_time(every, epochs, rundir):
    built, data = build("MISSRec", interest_update_epochs=every)
    done = []
    original = built.update_interests
    built.update_interests = lambda: (done.append(trainer.now), original())
    config = BBQRecConfig("MISSRec", "Mini", overrides=options("MISSRec"))
    trainer = HistoryTrainer(config, built)
    trainer._batches = type("None", (), {"epoch": lambda *_: [], "__len__": lambda _: 1})()
    for trainer.now in range(4):
        trainer._train_epoch(data.train_data, trainer.now)
    assert done == epochs


# candidates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 4.0])
def test_fused_scores_equal_a_loop_over_items(model, factor):
    torch.nn.init.constant_(model.fusion_factor, factor)
    states, representations = torch.randn(4, 16), model.representations().detach()
    found = model.fused_logits(states, representations).detach()
    assert found.shape == (4, model.n_items - 1)
    lacking = (~model.known[1:].all(1)).nonzero().flatten() + 1
    assert len(lacking) > 0
    for item in [1, 2, 3, *lacking[:4].tolist()]:
        for row, state in enumerate(states):
            own = [r for r in range(1, 3) if model.known[item, r]]
            by_id, *cosines = [
                float(F.cosine_similarity(state, representations[item, r], 0)) for r in [0, *own]
            ]
            weights = np.exp([factor * cosine for cosine in cosines])
            fused = float(np.dot(weights, cosines) / weights.sum()) if own else 0.0
            expected = (by_id + len(own) * fused) / (1 + len(own)) / model.temperature
            assert float(found[row, item - 1]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("modalities", [1, 2])
def test_few_modalities_are_fused_like_several(model, modalities):
    """Few modalities have shorter formulas; one more, which no item has, changes nothing."""
    torch.nn.init.constant_(model.fusion_factor, 4.0)
    states = torch.randn(4, 16)
    representations = model.representations().detach()[:, : 1 + modalities]
    absent = torch.zeros(len(representations), 3 - modalities, 16)
    known = model.known[:, : 1 + modalities]
    model.known = known
    few = model.fused_logits(states, representations)
    model.known = torch.cat([known, absent[:, :, 0] > 0], dim=1)
    several = model.fused_logits(states, torch.cat([representations, absent], dim=1))
    torch.testing.assert_close(few, several, rtol=1e-4, atol=1e-4)


def test_an_item_without_any_modality_is_scored_by_its_id(model):
    model.known[5, 1:] = False
    representations = model.representations().detach()
    representations[5, 1:] = 0
    states = torch.randn(3, 16)
    expected = F.cosine_similarity(states, representations[5, 0].expand(3, -1)) / model.temperature
    torch.testing.assert_close(model.fused_logits(states, representations)[:, 4], expected)


def test_a_missing_modality_has_no_say(model):
    lacking = int((~model.features.present[1:, 1]).nonzero()[0]) + 1
    states = torch.randn(2, 16)
    before = model.item_logits(states)
    model.features.matrix(1)[lacking] = 9.0
    torch.testing.assert_close(model.item_logits(states), before, rtol=0, atol=0)


def test_orthogonality_against_a_loop(model):
    memory = torch.randn(3, 6, 16)
    exists = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    squares = []
    for vectors, real in zip(memory, exists):
        own = [i for i in range(1, 6) if real[i]]
        pairs = [(a, b) for a in own for b in own if a < b]
        squares += [float(F.cosine_similarity(vectors[a], vectors[b], 0)) ** 2 for a, b in pairs]
    assert float(model.orthogonality(memory, exists)) == pytest.approx(np.mean(squares), rel=1e-5)
    right_angles = torch.cat([torch.randn(1, 1, 16), torch.eye(16)[None, :5]], dim=1)
    assert float(model.orthogonality(right_angles, torch.ones(1, 6).bool())) == 0.0
    alone = torch.tensor([[True, True, False, False, False, False]])
    assert float(model.orthogonality(memory[:1], alone)) == 0.0


def test_loss_is_cross_entropy_plus_the_weighted_regulariser(model):
    items = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    targets = torch.tensor([[0, 0, 0, 9], [0, 11, 0, 0]])
    batch = HistoryBatch(items, targets, torch.tensor([4, 2]))
    model.orthogonality_weight = 0.0
    plain = model.history_loss(batch)
    states = torch.stack([model.states(items)[0, 3], model.states(items)[1, 1]])
    expected = F.cross_entropy(model.item_logits(states), torch.tensor([8, 10]))
    torch.testing.assert_close(plain, expected)
    model.orthogonality_weight = 2.0
    memory, exists = model.encode_interests(items, model.representations())
    with_term = plain + 2 * model.orthogonality(memory, exists)
    torch.testing.assert_close(model.history_loss(batch), with_term)
    assert float(with_term.detach()) > float(plain.detach())
