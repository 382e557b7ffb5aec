"""Many users at once: chunks, threads and order make no difference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from recbole_bbqrec.generator.batch.encoded_history import latest
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.nn import parallel
from tests.support.generator import histories, small_catalogue, small_generator
from tests.support.second_device import second_device

CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("loss", ["code", "item"])
def test_ranking_equals_one_search_a_user(loss: str, threads: None) -> None:
    torch.manual_seed(0)
    catalogue = small_catalogue(40)
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, [3, 1, 5, 5, 2, 1, 4], 6)
    found = {}
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        found[n_threads] = rank(generator, catalogue, items, 6, torch.float32, rows=2)
        assert torch.get_num_threads() == n_threads
    assert torch.equal(found[1][0], found[3][0])
    assert torch.equal(found[1][1], found[3][1])
    whole = rank(generator, catalogue, items, 6, torch.float32)
    assert not any(part.is_inference() for result in (whole, found[3]) for part in result)
    for user, history in enumerate(items):
        alone = history[history > 0][None]
        with torch.no_grad():
            ids, scores = beam_search(generator, catalogue, generator.encode(catalogue, alone), 6)
        for many in (found[1], whole):
            assert many[0][user].tolist() == ids[0].tolist()
            torch.testing.assert_close(many[1][user], scores[0])


def test_pieces_keep_their_order_and_errors_surface(threads: None) -> None:
    torch.set_num_threads(2)
    inside = parallel.each(lambda piece: (piece, torch.get_num_threads()), range(5), CPU)
    assert inside == [(piece, 1) for piece in range(5)]

    def fail(piece: int) -> None:
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 0"):
        parallel.each(fail, range(3), CPU)
    assert torch.get_num_threads() == 2
    assert parallel.each(lambda piece: torch.get_num_threads(), [0], CPU) == [2]


def test_the_latest_items_of_histories() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        width, most = torch.randint(1, 8, (2,), generator=generator).tolist()
        lengths = torch.randint(1, width + 3, (4,), generator=generator)  # some beyond the columns
        items = torch.randint(1, 50, (4, width), generator=generator)
        items[torch.arange(width) >= lengths[:, None]] = 0
        found = latest(items, lengths, most)
        for row, whole, length in zip(found.tolist(), items.tolist(), lengths.tolist()):
            wanted = whole[:length][-most:]
            assert row == wanted + [0] * (len(row) - len(wanted))


def test_the_latest_items_where_lengths_stayed_on_the_cpu() -> None:
    with second_device() as there:
        items = torch.tensor([[3, 1, 2], [4, 0, 0]]).to(there)
        found = latest(items, torch.tensor([3, 1]), 2)
        assert found.device == there and found.cpu().tolist() == [[1, 2], [4, 0]]
