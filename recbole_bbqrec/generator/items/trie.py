"""The semantic IDs that exist, as a trie in CSR form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

_ALL = slice(None)


@dataclass(frozen=True)
class Trie:
    """A trie over composite tokens (M codes a level), one array a level.

    >>> ids = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 1]]).unsqueeze(2)  # M = 1; row 0: [PAD]
    >>> trie = Trie.build(ids, codebook_size=3)
    >>> [len(codes) for codes in trie.codes]  # nodes of each level
    [2, 3]
    >>> trie.children(1, torch.tensor([0, 1]))  # first child and number of children
    (tensor([0, 2]), tensor([2, 1]))
    >>> trie.item_nodes[3]
    tensor([1, 2])

    Nodes of a level are numbered in lexicographic order of their path, so the children of a node
    are consecutive. ``n_l`` is the number of nodes of level l = 0 .. L-1; the root is not a node.

    * ``codes[l]``: int64 [n_l, M], the token of each node.
    * ``child_ptr[l]``: int64 [n_{l-1} + 1]; the children, in level l, of node p of level l-1 are
      ``child_ptr[l][p] .. child_ptr[l][p+1] - 1``. ``child_ptr[0]`` is ``[0, n_0]``.
    * ``leaf_ptr``, ``leaf_items``: the items of each node of the last level, ids ascending.
    * ``item_places``: int64 [n_items], an item's place in ``leaf_items``, -1 for an item left out.
    * ``item_nodes``: int64 [n_items, L], the nodes on an item's path, -1 for an item left out.
    * ``branches[l]``: bool [n_l], true if a node or a descendant of it has several children.
    * ``root_columns``: int64 [n_0, M], the first level's codes as positions in a row of M * N
      logits; kept because every batch scores all of them.
    * ``root_order``, ``root_offsets``: first-level nodes grouped by (signal, code), the group of
      signal m and code c starting at ``root_offsets[m * N + c]``.
    """

    codebook_size: int
    codes: tuple[Tensor, ...]
    child_ptr: tuple[Tensor, ...]
    leaf_ptr: Tensor
    leaf_items: Tensor
    item_places: Tensor
    item_nodes: Tensor
    branches: tuple[Tensor, ...]
    root_columns: Tensor
    root_order: Tensor
    root_offsets: Tensor

    @property
    def levels(self) -> int:
        return len(self.codes)

    @property
    def n_signals(self) -> int:
        return self.codes[0].shape[1]

    def columns(self, level: int, nodes: Tensor | slice = _ALL) -> Tensor:
        """Return positions of the codes of ``nodes`` (int64 [E], default all) in a row of logits.

        A row holds M * N logits; the result is int64 [E, M].
        """
        offsets = torch.arange(self.n_signals, device=self.leaf_ptr.device) * self.codebook_size
        return self.codes[level][nodes] + offsets

    def children(self, level: int, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Return first child (in ``level``) and number of children of nodes of ``level - 1``.

        ``parents``: int64 of any shape; both results have that shape.
        """
        pointer = self.child_ptr[level]
        first = pointer[parents]
        return first, pointer[parents + 1] - first

    def item_ptr(self, level: int) -> Tensor:
        """Return each node's range in ``leaf_items`` as a CSR pointer: int64 [n_l + 1]."""
        return self._item_pointers[level]

    @cached_property
    def _item_pointers(self) -> tuple[Tensor, ...]:
        """Pointers of all levels; every ranking reads those of the first, long ones."""
        pointers = [self.leaf_ptr]
        with torch.inference_mode(False):  # training reads them, too
            for children in reversed(self.child_ptr[1:]):
                pointers.append(pointers[-1][children])
        return tuple(reversed(pointers))

    @cached_property
    def every_place(self) -> Tensor:
        """The places of all items in ``leaf_items``: 0, 1, ..., int64 [I]."""
        with torch.inference_mode(False):
            return torch.arange(len(self.leaf_items), device=self.leaf_items.device)

    @cached_property
    def several_in_leaf(self) -> bool:
        """True if a leaf holds more than one item."""
        return len(self.leaf_items) > len(self.codes[-1])

    def to(self, device: torch.device | str) -> Trie:
        """Return the same trie with its arrays on ``device``."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device)
            return tuple(t.to(device) for t in value) if isinstance(value, tuple) else value

        return Trie(**{part.name: move(getattr(self, part.name)) for part in fields(self)})  # type: ignore

    @classmethod
    def build(cls, codes: Tensor, codebook_size: int, items: Tensor | None = None) -> Trie:
        """Build from ``codes`` int64 [n_items, L, M], row 0 being [PAD].

        ``items`` (int64, default: all but [PAD]) are the items that may be generated. The trie
        is always built on the CPU, so that it is the same everywhere, and then moved to the device
        of ``codes``. Raises ValueError for codes outside [0, codebook_size), for no
        items, and for item ids that are repeated or outside 1 .. n_items - 1.
        """
        device, codes = codes.device, codes.cpu()
        n_items, levels, _ = codes.shape
        items = _check_items(None if items is None else items.cpu(), n_items)
        paths = codes[items]  # [I, L, M]
        if int(paths.min()) < 0 or int(paths.max()) >= codebook_size:
            raise ValueError(
                f"codes lie in {int(paths.min())} .. {int(paths.max())}: they must lie in "
                f"0 .. {codebook_size - 1}"
            )
        node_codes, pointers = [], []
        item_nodes = codes.new_full((n_items, levels), -1)
        node, n_parents = torch.zeros_like(items), 1
        for level in range(levels):
            parent = node
            node, n_nodes = _number_children(parent, n_parents, paths[:, level], codebook_size)
            item_nodes[items, level] = node
            # Every item of a node writes the same value, so the order of writing is immaterial.
            node_codes.append(paths.new_empty(n_nodes, paths.shape[2]))
            node_codes[level][node] = paths[:, level]
            node_parent = node.new_empty(n_nodes)
            node_parent[node] = parent
            pointers.append(_pointers(node_parent, n_parents))
            n_parents = n_nodes
        root_codes = node_codes[0] + torch.arange(codes.shape[2]) * codebook_size  # [n_0, M]
        root_order, root_offsets = _group_by_code(root_codes, codes.shape[2] * codebook_size)
        leaf_items = items[torch.argsort(node, stable=True)]
        item_places = items.new_full((n_items,), -1)
        item_places[leaf_items] = torch.arange(len(leaf_items))
        return cls(
            codebook_size=codebook_size,
            codes=tuple(node_codes),
            child_ptr=tuple(pointers),
            leaf_ptr=_pointers(node, n_parents),
            leaf_items=leaf_items,
            item_places=item_places,
            item_nodes=item_nodes,
            branches=_branches(pointers, n_parents),
            root_columns=root_codes,
            root_order=root_order,
            root_offsets=root_offsets,
        ).to(device)


def _check_items(items: Tensor | None, n_items: int) -> Tensor:
    """Return item ids ascending, int64 [I]."""
    if items is None:
        items = torch.arange(1, n_items)
    unique = torch.unique(items)
    if unique.numel() == 0:
        raise ValueError("a trie needs at least one item")
    if unique.numel() != items.numel():
        raise ValueError("items holds repeated ids")
    if int(unique[0]) < 1 or int(unique[-1]) >= n_items:
        raise ValueError(
            f"items holds ids {int(unique[0])} .. {int(unique[-1])}: they must lie in "
            f"1 .. {n_items - 1}"
        )
    ids: Tensor = unique
    return ids


def _number_children(
    parent: Tensor, n_parents: int, tokens: Tensor, codebook_size: int
) -> tuple[Tensor, int]:
    """Number the distinct (parent, token) pairs in lexicographic order.

    ``parent`` int64 [I], ``tokens`` int64 [I, M] -> (number int64 [I], how many). As many codes
    as fit are packed into one 64-bit key before each sort.
    """
    key, bound = parent, n_parents
    for column in tokens.unbind(1):
        if bound * codebook_size >= 2**63:
            key, bound = _rank(key)
        key, bound = key * codebook_size + column, bound * codebook_size
    return _rank(key)


def _rank(key: Tensor) -> tuple[Tensor, int]:
    values, rank = torch.unique(key, return_inverse=True)
    return rank, values.numel()


def _pointers(group: Tensor, n_groups: int) -> Tensor:
    """Return the CSR pointer [n_groups + 1] of members with groups ``group`` [n] in any order."""
    counts = torch.bincount(group, minlength=n_groups)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _group_by_code(columns: Tensor, n_columns: int) -> tuple[Tensor, Tensor]:
    """Group nodes by column: ([n_0, M], M * N) -> (node [M * n_0], offset [M * N])."""
    flat = columns.flatten()
    order = torch.argsort(flat, stable=True)
    return order // columns.shape[1], _pointers(flat, n_columns)[:-1]


def _branches(pointers: list[Tensor], n_leaves: int) -> tuple[Tensor, ...]:
    """Return, for each level, true if a node or one of its descendants has several children."""
    branches = [torch.zeros(n_leaves, dtype=torch.bool)]
    for pointer in reversed(pointers[1:]):
        counts = pointer.diff()
        owner = torch.repeat_interleave(torch.arange(counts.numel()), counts)
        below = torch.zeros(counts.numel(), dtype=torch.bool)
        below[owner[branches[0]]] = True
        branches.insert(0, below | (counts > 1))
    return tuple(branches)
