"""Neighbours by succession and by features, against loops over users and items."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.model.parts import neighbour_graph as item_neighbours
from recbole_bbqrec.model.parts.neighbour_graph import alike, chosen_after, weighted_neighbours
from recbole_bbqrec.model.settings import NeighbourSettings

N_ITEMS = 30


def users_of(count: int) -> list[list[int]]:
    """Some items twice, some items never."""
    return [torch.randint(1, N_ITEMS - 5, (2 + user % 7,)).tolist() for user in range(count)]


def histories_of(users: list[list[int]]) -> Histories:
    items = torch.tensor([item for user in users for item in user])
    offsets = torch.tensor([0, *(len(user) for user in users)]).cumsum(0)
    return Histories(items, offsets, torch.arange(len(users)))


def matrix_of(users: list[list[int]]) -> Tensor:
    return torch.from_numpy(chosen_after(histories_of(users), N_ITEMS).toarray())


def slow_chosen_after(users: list[list[int]], window: int = 50) -> Tensor:
    values = torch.zeros(N_ITEMS, N_ITEMS, dtype=torch.float64)
    for one in range(N_ITEMS):
        having = [list(dict.fromkeys(user)) for user in users if one in user]
        for other in range(N_ITEMS):
            after = [user[user.index(one) + 1 :][:window] for user in having]
            count = sum(other in later for later in after)
            values[one, other] = count / math.sqrt(len(having)) if count else 0.0
    return values


@pytest.mark.parametrize("window", [50, 2])
def test_chosen_after(window: int, monkeypatch) -> None:
    monkeypatch.setattr(item_neighbours, "_LATER", window)
    torch.manual_seed(0)
    users = users_of(60)
    torch.testing.assert_close(matrix_of(users), slow_chosen_after(users, window))
    assert not torch.equal(slow_chosen_after(users, window), slow_chosen_after(users, 1))


def test_an_item_counts_where_it_was_chosen_first() -> None:
    values = matrix_of([[4, 7, 4], [7, 4], [9]])
    assert values[4, 7] == pytest.approx(1 / math.sqrt(2))
    assert values[7, 4] == pytest.approx(1 / math.sqrt(2))
    assert int((values != 0).sum()) == 2


def test_the_largest_values_are_kept(monkeypatch) -> None:
    torch.manual_seed(1)
    users = users_of(60)
    every = matrix_of(users)
    monkeypatch.setattr(item_neighbours, "_CHOSEN", 3)
    kept = matrix_of(users)
    assert int((every != 0).sum(1).max()) > 3
    for item in range(N_ITEMS):
        best = sorted(range(N_ITEMS), key=lambda j: (-float(every[item, j]), j))[:3]
        wanted = torch.zeros(N_ITEMS, dtype=torch.float64)
        wanted[best] = every[item, best]
        torch.testing.assert_close(kept[item], wanted)


def signs(n: int) -> torch.Tensor:
    """Features [n, 64] of 1 and -1: exact cosines, which no machine rounds otherwise."""
    return torch.randint(2, (n, 64)).float() * 2 - 1


def by_hand(features: torch.Tensor, kept: int, tied: int = 500) -> torch.Tensor:
    """`alike` in one modality by a loop over the places among the nearest: float64 [N, N]."""
    found = torch.zeros(len(features), len(features), dtype=torch.float64)
    for item in range(len(features)):
        cosines = torch.cosine_similarity(features[item : item + 1], features).double()
        steps = (cosines * 10_000).round()
        steps[item] = 0
        left, weighted = kept, {}
        for step in sorted({float(step) for step in steps if step > 0}, reverse=True):
            level = (steps == step).nonzero().flatten().tolist()
            if len(level) > left and len(level) > tied:
                break
            for other in level:
                weighted[other] = min(1.0, left / len(level)), step / 10_000
            left -= len(level)
            if left <= 0:
                break
        total = sum(weight for weight, _ in weighted.values())
        mean = sum(weight * cosine for weight, cosine in weighted.values()) / max(total, 1e-12)
        for other, (weight, cosine) in weighted.items():
            found[item, other] = weight * cosine / mean
    return found


@pytest.mark.parametrize("cells", [1, 70, 1 << 25])
@pytest.mark.parametrize("kept", [4, 50])
def test_alike(kept: int, cells: int, monkeypatch) -> None:
    """Items without features are like none; opposite ones are not listed."""
    monkeypatch.setattr(item_neighbours, "_ALIKE", kept)
    monkeypatch.setattr(item_neighbours, "_CELLS", cells)
    torch.manual_seed(2)
    features = signs(N_ITEMS)
    features[[0, 6]] = 0
    found = torch.from_numpy(alike([features]).toarray()).float()
    torch.testing.assert_close(found, by_hand(features, kept).float())
    assert not found[6].any() and not found[:, 6].any()
    assert (found >= 0).all() and found[7].any()


def test_alike_is_the_cosine_over_the_mean_of_the_nearest() -> None:
    """The case without ties, to the four decimals of the cosines."""
    torch.manual_seed(2)
    features = torch.randn(N_ITEMS, 5)
    found = torch.from_numpy(alike([features]).toarray()).float()
    cosines = torch.cosine_similarity(features.unsqueeze(0), features.unsqueeze(1), dim=-1)
    near = cosines.clamp(min=0).fill_diagonal_(0)
    means = near.sum(1, keepdim=True) / (near > 0).sum(1, keepdim=True)
    torch.testing.assert_close(found, near / means, rtol=0, atol=5e-4)


@pytest.mark.parametrize("tied", [500, 3])
def test_items_equally_near_share_the_last_places(tied: int, monkeypatch) -> None:
    """Labels as features: many items are the same. Their numbers must not choose among them."""
    monkeypatch.setattr(item_neighbours, "_ALIKE", 6)
    monkeypatch.setattr(item_neighbours, "_TIED", tied)
    torch.manual_seed(4)
    labels = signs(8)[torch.randint(8, (60,))]  # 7 or so of each
    labels[::3] = signs(20)
    labels[0] = 0
    found = torch.from_numpy(alike([labels]).toarray()).float()
    torch.testing.assert_close(found, by_hand(labels, 6, tied).float())
    most = int((found > 0).sum(1).max())
    assert most > 8 if tied == 500 else most <= 8  # 5 nearer ones and 3 for the last place

    order = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randperm(59) + 1])
    again = torch.from_numpy(alike([labels[order]]).toarray()).float()
    torch.testing.assert_close(again, found[order][:, order])


def test_alike_is_the_mean_over_the_modalities_that_an_item_has() -> None:
    torch.manual_seed(3)
    text, image = torch.randn(N_ITEMS, 5), torch.randn(N_ITEMS, 400)
    text[[0, 6, 7]], image[[0, 7, 8]] = 0, 0
    found, by_text, by_image = (
        torch.from_numpy(alike(parts).toarray()) for parts in ([text, image], [text], [image])
    )
    expected = (by_text + by_image) / 2
    expected[6], expected[8] = by_image[6], by_text[8]
    torch.testing.assert_close(found, expected)
    assert not found[7].any() and not torch.allclose(by_text, by_image)


def test_added_items_change_no_value_between_others() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(90, 6), torch.randn(90, 4)]
    parts[0][[0, 7]] = 0
    parts[1][[0, 8]] = 0
    added = torch.zeros(90, dtype=torch.bool)
    added[torch.randperm(89)[:20] + 1] = True
    old = (~added).nonzero().squeeze(1)
    whole = torch.from_numpy(alike(parts, added=added).toarray())
    alone = torch.from_numpy(alike([part[old] for part in parts]).toarray())
    assert torch.equal(whole[old][:, old], alone)
    every = torch.from_numpy(alike(parts).toarray())
    assert torch.allclose(whole[added] > 0, every[added] > 0)
    # Of a modality's cosines to an added item, those above the last neighbour's count.
    item = int(old[5])
    for other in added.nonzero().squeeze(1).tolist():
        value, having = 0.0, 0
        for part in parts:
            unit = torch.nn.functional.normalize(part, dim=1)
            cosines = (unit[item] @ unit.t() * 10_000).round()
            near = cosines[[i for i in old.tolist() if i != item]]
            near = near[near > 0].sort(descending=True).values[:50]
            having += len(near) > 0
            limit = near[-1] if len(near) == 50 else 0
            if cosines[other] > limit:
                value += float(cosines[other] / near.mean())
        assert float(whole[item, other]) == pytest.approx(value / max(having, 1), rel=1e-4)


def test_added_items_that_nobody_chose_count_half_as_much_again() -> None:
    torch.manual_seed(0)
    parts, added = [torch.randn(30, 6)], torch.arange(30) >= 26
    histories = histories_of([[1, 2, 3, 26], [2, 4, 26], [5, 6, 1]])  # 27 to 29 are unchosen
    settings = NeighbourSettings(cooccurrence_weight=4.0, feature_similarity_weight=2.0)
    found = weighted_neighbours(settings, histories, parts, 30, added)
    similar = torch.from_numpy(alike(parts, added=added).toarray())
    similar[:, 27:] *= 1.5
    expected = 2 * similar + 4 * torch.from_numpy(chosen_after(histories, 30).toarray())
    assert found is not None
    rows = torch.repeat_interleave(torch.arange(30), found.pointer.diff())
    dense = torch.zeros(30, 30).index_put_((rows, found.items), found.values)
    torch.testing.assert_close(dense, expected.float())
    alone = weighted_neighbours(settings, None, parts, 30, added)  # nothing to make up for
    assert alone is not None
    assert torch.equal(alone.values, 2 * torch.from_numpy(alike(parts, added=added).data).float())
