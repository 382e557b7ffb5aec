from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_bbqrec.generator.items.trie import Trie


def dict_trie(codes: list[Any], items: list[int]) -> dict[Any, Any]:
    """Nested dictionaries: token -> ... -> list of items."""
    root: dict[Any, Any] = {}
    for item in sorted(items):
        node = root
        path = [tuple(token) for token in codes[item]]
        for token in path[:-1]:
            node = node.setdefault(token, {})
        node.setdefault(path[-1], []).append(item)
    return root


def unfold(trie: Trie, level: int = 0, parent: int = 0) -> dict[Any, Any]:
    """The CSR trie as nested dictionaries; children must come in ascending order."""
    first, count = trie.children(level, torch.tensor(parent))
    nodes = range(int(first), int(first + count))
    tokens = [tuple(trie.codes[level][node].tolist()) for node in nodes]
    assert tokens == sorted(set(tokens))
    if level == trie.levels - 1:
        ptr = trie.leaf_ptr
        below: list[Any] = [trie.leaf_items[ptr[n] : ptr[n + 1]].tolist() for n in nodes]
    else:
        below = [unfold(trie, level + 1, node) for node in nodes]
    return dict(zip(tokens, below))


def fields_equal(a: Trie, b: Trie) -> bool:
    for x, y in zip(vars(a).values(), vars(b).values()):
        pairs = zip(x, y) if isinstance(x, tuple) else [(x, y)]
        if not all(torch.equal(torch.as_tensor(p), torch.as_tensor(q)) for p, q in pairs):
            return False
    return True


@pytest.mark.parametrize("levels, signals, size", [(1, 1, 4), (3, 1, 3), (3, 3, 2), (2, 2, 256)])
@pytest.mark.parametrize("left_out", [0, 7])
def test_equals_a_trie_of_dictionaries(levels: int, signals: int, size: int, left_out: int) -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, size, (40, levels, signals))
    items = torch.randperm(39)[left_out:] + 1
    trie = Trie.build(codes, size, items)
    assert unfold(trie) == dict_trie(codes.tolist(), items.tolist())
    for item in range(40):
        nodes = trie.item_nodes[item].tolist()
        if item not in items.tolist():
            assert nodes == [-1] * levels
            continue
        for level, node in enumerate(nodes):
            assert torch.equal(trie.codes[level][node], codes[item, level])


def test_order_of_items_does_not_matter() -> None:
    torch.manual_seed(1)
    codes = torch.randint(0, 4, (50, 3, 2))
    items = torch.arange(1, 50)
    assert fields_equal(
        Trie.build(codes, 4, items), Trie.build(codes, 4, items[torch.randperm(49)])
    )


def test_keys_too_wide_for_64_bits() -> None:
    """10 signals of 12 bits: 120 bits a token, so that keys must be ranked on the way."""
    torch.manual_seed(2)
    codes = torch.randint(0, 4096, (60, 2, 10))
    codes[30:] = codes[:30]
    codes[30:, 1, 9] = (codes[30:, 1, 9] + 1) % 4096  # differs in the very last code only
    assert unfold(Trie.build(codes, 4096)) == dict_trie(codes.tolist(), list(range(1, 60)))


def test_branches_and_root_groups() -> None:
    codes = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [2, 1, 1]])
    trie = Trie.build(codes.unsqueeze(2), 3)
    assert [b.tolist() for b in trie.branches] == [
        [True, False, False],
        [True, False, False],
        [False] * 4,
    ]
    torch.manual_seed(0)
    trie = Trie.build(torch.randint(0, 3, (20, 1, 2)), 3)
    ends = [*trie.root_offsets.tolist()[1:], len(trie.root_order)]
    for column, (start, end) in enumerate(zip(trie.root_offsets.tolist(), ends)):
        held = (trie.columns(0) == column).any(1).nonzero().squeeze(1)
        assert trie.root_order[start:end].tolist() == held.tolist()


@pytest.mark.parametrize(
    "items, message",
    [([], "at least one"), ([1, 1], "repeated"), ([0, 1], "1 .. 4"), ([5], "1 .. 4")],
)
def test_bad_items(items: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trie.build(torch.zeros(5, 2, 1, dtype=torch.int64), 2, torch.tensor(items).long())


@pytest.mark.parametrize("code", [-1, 3])
def test_codes_outside_the_codebook(code: int) -> None:
    codes = torch.zeros(5, 2, 1, dtype=torch.int64)
    codes[2, 1, 0] = code
    with pytest.raises(ValueError, match=r"0 \.\. 2"):
        Trie.build(codes, 3)
