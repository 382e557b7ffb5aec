"""Beam search over the trie, vectorised over users, beams and children.

The encoder and the cross-attention keys and values are computed once per user; beams are queries
of one attention call. The beams of a user hold different nodes, so a user never has more candidates
than the trie has nodes on that level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference import scoring
from recbole_bbqrec.generator.inference.allowed import Allowed
from recbole_bbqrec.generator.inference.compiled_weights import CompiledWeights, compiled
from recbole_bbqrec.generator.inference.decoding import Decoder
from recbole_bbqrec.generator.inference.shortlist import root_top
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.nn.topk import best_of_columns, best_of_rows

_BLOCK = 1 << 21  # logits and candidate scores held at a time
_MIN_USERS_PER_BATCH = 16  # one pass over the item keys serves them all
_PADDED = 1 << 16  # pad children up to twice their number and this many places: fewer operators


class _Beams(NamedTuple):
    """The nodes kept for each user, their scores, and the decoder row each descends from.

    All [B, W]; ``nodes`` and ``rows`` int64. Their order within a user has no meaning. The row of
    a node without a choice ahead means nothing.
    """

    nodes: Tensor
    scores: Tensor
    rows: Tensor

    def take(self, users: slice) -> _Beams:
        return _Beams(self.nodes[users], self.scores[users], self.rows[users])


class _Rows(NamedTuple):
    """The beams that the decoder reads: the first few of each user, R of all users together.

    * ``cells``: where they lie in a [B, S] grid, S being the most that a user has.
    * ``counts``, ``first``: int64 [B], how many a user has, and the row of the first one.
    * ``hidden``: [R, d], the states that predict the next level.
    """

    cells: Packing
    counts: Tensor
    first: Tensor
    hidden: Tensor

    def of_users(self, users: slice) -> Tensor:
        """Return the states of some users' rows: [r, d]."""
        start, last = int(self.first[users.start]), users.stop - 1
        return self.hidden[start : int(self.first[last] + self.counts[last])]


class _Level(NamedTuple):
    """One level of the trie, below the first, that is searched."""

    decoder: Decoder
    trie: Trie
    level: int
    loss: str  # item | code
    allowed: Allowed | None


@torch.no_grad()
def beam_search(
    generator: Generator,
    catalogue: Catalogue,
    memory: Memory,
    num_beams: int,
    top_k: int | None = None,
    allowed: Allowed | None = None,
    weights: CompiledWeights | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the best items for each user with ``num_beams`` beams.

    With ``allowed``, for the B users, only items that it allows; where a user has fewer than K, the
    last ones have the score -inf and mean nothing. ``weights`` as for :func:`encode`.

    Returns items int64 [B, K] and their log-probabilities [B, K] (see
    :mod:`~recbole_bbqrec.generator.inference.scoring`), by descending score and then ascending item
    id. K is ``top_k``, by default ``num_beams``, but at most the number of items in the trie.

    Raises ValueError when ``num_beams`` is below 1 or ``top_k`` outside 1 .. num_beams, and when
    the generator is in training mode.
    """
    if num_beams < 1:
        raise ValueError(f"num_beams is {num_beams}: it must be at least 1")
    if top_k is not None and not 1 <= top_k <= num_beams:
        raise ValueError(f"top_k is {top_k}: it must lie in 1 .. num_beams ({num_beams})")
    if generator.training:
        raise ValueError("beam search needs the generator in evaluation mode: call train(False)")
    weights, loss = weights or compiled(generator), generator.config.generation_loss
    with torch.autocast(memory.lengths.device.type, enabled=False):  # they are cast already
        scores = weights.item_scores(generator, catalogue, memory)
        groups = None
        if scores is not None and allowed is None:  # which could close all groups that look best
            groups = weights.shortlist(scores, num_beams)
        decoder = Decoder.after(weights, memory, scores, groups)
        return _search(decoder, catalogue.trie, loss, num_beams, top_k, allowed)


def _search(
    decoder: Decoder,
    trie: Trie,
    loss: str,
    num_beams: int,
    top_k: int | None,
    allowed: Allowed | None,
) -> tuple[Tensor, Tensor]:
    beams = _first_level(decoder, trie, loss, num_beams, allowed)
    for level in range(1, trie.levels):
        at = _Level(decoder, trie, level, loss, allowed)
        beams, counts = _open_first(at, beams)
        beams = _next_level(at, beams, _decoded(at, beams, counts), num_beams)
    k = min(top_k or num_beams, trie.leaf_items.numel())
    return items_of_leaves(trie, beams.nodes, beams.scores, k, allowed)


def _first_level(
    decoder: Decoder, trie: Trie, loss: str, width: int, allowed: Allowed | None
) -> _Beams:
    """Find the best ``width`` children of the root for each user."""
    logits = decoder.logits(decoder.start(), 0)  # [B, M * N]
    if decoder.scores is None:
        scores, nodes = scoring.root_top(logits, trie, loss, width, _BLOCK, allowed)
    elif decoder.groups is not None:
        scores, nodes = root_top(decoder.scores, decoder.groups, logits, width)
    else:
        scores, nodes = _root_top_of_items(decoder.scores, logits, width, allowed)
    user = torch.arange(len(nodes), device=nodes.device)  # the first level has a row a user
    return _Beams(nodes, scores, user.unsqueeze(1).expand_as(nodes))


def _root_top_of_items(
    items: ItemScores, logits: Tensor, width: int, allowed: Allowed | None
) -> tuple[Tensor, Tensor]:
    """Do :func:`scoring.root_top` with an item head: ``logits`` [B, M * N] -> two [B, W]."""
    parts = []
    rows = max(_MIN_USERS_PER_BATCH, _BLOCK // len(items.keys))
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        scores = scoring.headed_root_scores(logits[part], items.take(part))  # [n_0, b]
        if items.trie.levels == 1:
            leaves = torch.arange(len(scores), device=scores.device)
            scores += scoring.leaf_share(items.trie, leaves, scores.dtype)[:, None]
        if allowed is not None:
            scores = allowed.close_roots(scores, 0, slice(start, start + scores.shape[1]))
        parts.append(best_of_columns(scores, min(width, len(scores))))
    return torch.cat([top[0] for top in parts]), torch.cat([top[1] for top in parts])


def _open_first(at: _Level, beams: _Beams) -> tuple[_Beams, Tensor]:
    """Put each user's beams with a choice ahead first, and count them: int64 [B].

    With the "item" loss an only child has probability one, so a beam without any choice left
    needs no decoder. With the "code" loss every beam does.
    """
    if at.loss == "code":
        return beams, torch.full_like(beams.nodes[:, 0], beams.nodes.shape[1])
    is_open = at.trie.branches[at.level - 1][beams.nodes]  # [B, W]
    order = torch.argsort(~is_open, dim=1, stable=True)
    return _Beams(*(part.gather(1, order) for part in beams)), is_open.sum(1)


def _decoded(at: _Level, beams: _Beams, counts: Tensor) -> _Rows | None:
    """Decode the first ``counts`` int64 [B] beams of each user; None without any.

    Users differ in how many of their beams have a choice ahead, so they are decoded side by side,
    without padding.
    """
    most = int(counts.max())
    if most == 0:
        return None
    cells = Packing(torch.arange(most, device=counts.device) < counts.unsqueeze(1))
    nodes, rows = (cells.pack(part[:, :most]) for part in (beams.nodes, beams.rows))  # [R]
    hidden = at.decoder.advance(at.level, at.trie.codes[at.level - 1][nodes], rows, cells)
    return _Rows(cells, counts, counts.cumsum(0) - counts, hidden)


def _next_level(at: _Level, beams: _Beams, rows: _Rows | None, width: int) -> _Beams:
    """Find the best ``width`` children of each user's beams.

    Beams without a decoder row have a single child each.
    """
    trie = at.trie
    first, counts = trie.children(at.level, beams.nodes)  # [B, W]
    n_columns = trie.n_signals * trie.codebook_size
    n_logits = rows.cells.shape.numel() * n_columns if rows is not None else 0
    padded = counts.numel() * int(counts.max())
    if n_logits <= 4 * _BLOCK and padded <= _PADDED + 2 * int(counts.sum()):
        return _next_of_padded(at, beams, rows, width)
    parts = []
    held_at_a_time = counts.sum(1) + (0 if rows is None else rows.counts * n_columns)
    for users in ragged.chunks(held_at_a_time, _BLOCK):
        held = beams.take(users)
        owner, child = ragged.expand(first[users].flatten(), counts[users].flatten())  # [E]
        gain = held.scores.flatten()[owner]  # [E]
        row = owner
        if rows is not None:
            user, place = owner // held.nodes.shape[1], owner % held.nodes.shape[1]
            row = rows.first[users][user] + place
            gain = gain + _gain(at, rows, users, user, place, child)
        share = _share_at(at, child, gain.dtype)
        gain = gain if share is None else gain + share
        if at.allowed is not None:
            user = owner // held.nodes.shape[1] + users.start
            gain = gain.masked_fill(at.allowed.is_closed(at.level, user, child), -torch.inf)
        # Every beam has a child, and a level with fewer nodes than the width was kept whole: there
        # are too few candidates only where a user's open nodes have run out and beams hold a node
        # twice. Places without a candidate have -inf then, and stand for the user's last one.
        per_user, kept = counts[users].sum(1), min(width, len(trie.codes[at.level]))
        grid, start = _rows(gain, per_user, -torch.inf, kept)
        best, chosen = best_of_rows(grid, kept)
        chosen = torch.minimum(chosen, per_user[:, None] - 1) + start[:, None]  # [b, W']
        parts.append(_Beams(child[chosen], best, row[chosen]))
    return _Beams(*(torch.cat(part) for part in zip(*parts)))


def _next_of_padded(at: _Level, beams: _Beams, rows: _Rows | None, width: int) -> _Beams:
    """Do :func:`_next_level` with children padded to the widest node: far fewer operators."""
    first, counts = at.trie.children(at.level, beams.nodes)  # [B, W]
    widest = int(counts.max())
    place = torch.arange(widest, device=first.device)
    exists = place < counts.unsqueeze(-1)  # [B, W, C]
    child = torch.where(exists, first.unsqueeze(-1) + place, first.unsqueeze(-1))
    scores = beams.scores.unsqueeze(-1).expand(child.shape)  # [B, W, C]
    if rows is not None:
        n_open = rows.cells.shape[1]
        gain = _padded_gain(at, rows, child[:, :n_open], exists[:, :n_open])
        scores = torch.cat([scores[:, :n_open] + gain, scores[:, n_open:]], dim=1)
    share = _share_at(at, child, scores.dtype)
    scores = scores if share is None else scores + share
    if at.allowed is not None:
        user = torch.arange(len(child), device=child.device)[:, None, None].expand_as(child)
        exists = exists & ~at.allowed.is_closed(at.level, user, child)
    scores = scores.masked_fill(~exists, -torch.inf).flatten(1)
    kept = min(width, len(at.trie.codes[at.level]), scores.shape[1])  # see _next_level
    best, chosen = best_of_rows(scores, kept)
    row = chosen.div(widest, rounding_mode="floor")
    row = row if rows is None else row + rows.first.unsqueeze(1)
    return _Beams(child.flatten(1).gather(1, chosen), best, row)


def _padded_gain(at: _Level, rows: _Rows, child: Tensor, exists: Tensor) -> Tensor:
    """Score children by log-probability given parents, [B, S, C]; some do not exist.

    Where a place of the grid has no row, the beam has one child, of probability one.
    """
    logits = rows.cells.unpack(at.decoder.logits(rows.hidden, at.level))  # [B, S, M * N]
    if at.loss == "code":
        logits = scoring.code_log_probs(logits, at.trie.n_signals)
    columns = at.trie.columns(at.level, child).flatten(2)  # [B, S, C * M]
    scores = logits.gather(2, columns).view(*child.shape, -1).sum(-1)
    if at.decoder.scores is not None:
        place = torch.arange(exists.shape[1], device=exists.device)
        asked = exists & (place < rows.counts.unsqueeze(1)).unsqueeze(-1)
        user = asked.nonzero()[:, 0]
        scores[asked] += at.decoder.scores.masses(at.level, user, child[asked])
    if at.loss == "item":
        total = scores.masked_fill(~exists, -torch.inf).logsumexp(2, keepdim=True)
        scores = scores - total
    return scores


def _gain(
    at: _Level, rows: _Rows, users: slice, user: Tensor, place: Tensor, child: Tensor
) -> Tensor:
    """Score children by log-probability given parents, [E]; 0 for those of beams not decoded.

    ``user`` and ``place``, int64 [E], are those of the parents among the b ``users``.
    """
    first, scores = rows.first[users], at.decoder.scores
    decoded = place < rows.counts[users][user]  # [E]
    user, place, nodes = user[decoded], place[decoded], child[decoded]
    row = first[user] - first[0] + place
    masses = None if scores is None else scores.take(users).masses(at.level, user, nodes)
    logits = at.decoder.logits(rows.of_users(users), at.level)  # [r, M * N]
    gain = torch.zeros(decoded.shape, dtype=logits.dtype, device=decoded.device)
    gain[decoded] = scoring.child_scores(logits, at.trie, at.level, row, nodes, at.loss, masses)
    return gain


def _share_at(at: _Level, nodes: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return the leaf's term of an item's score; None above the last level and with "code"."""
    if at.level < at.trie.levels - 1 or at.loss == "code":
        return None
    return scoring.leaf_share(at.trie, nodes, dtype)


def _rows(values: Tensor, counts: Tensor, fill: float, least: int = 0) -> tuple[Tensor, Tensor]:
    """Lay values out by user: ``values`` [E], ``counts`` int64 [b] -> [b, max count].

    There are at least ``least`` columns. Also returns where each user's values start, int64 [b].
    """
    start = counts.cumsum(0) - counts
    user, place = ragged.expand(torch.zeros_like(counts), counts)
    grid = values.new_full((len(counts), max(int(counts.max()), least)), fill)
    grid[user, place] = values
    return grid, start


def items_of_leaves(
    trie: Trie, leaves: Tensor, values: Tensor, k: int, allowed: Allowed | None
) -> tuple[Tensor, Tensor]:
    """List the items of ``leaves`` int64 [B, W] with the ``values`` [B, W] of their leaf.

    Returns the best first and ties by id: items and values, two [B, k].
    """
    if not trie.several_in_leaf:
        return _by_score(trie.leaf_items[leaves], values, k)
    first = trie.leaf_ptr[leaves]
    counts = trie.leaf_ptr[leaves + 1] - first  # [B, W]
    results = []
    for users in ragged.chunks(counts.sum(1), _BLOCK):
        owner, place = ragged.expand(first[users].flatten(), counts[users].flatten())
        per_user = counts[users].sum(1)
        items, _ = _rows(trie.leaf_items[place], per_user, torch.iinfo(torch.int64).max)
        gain = values[users].flatten()[owner]
        if allowed is not None:
            user = owner // leaves.shape[1] + users.start
            gain = gain.masked_fill(allowed.is_excluded(user, place), -torch.inf)
        scores, _ = _rows(gain, per_user, -torch.inf)
        results.append(_by_score(items, scores, k))
    return torch.cat([r[0] for r in results]), torch.cat([r[1] for r in results])


def _by_score(items: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the best ``k`` of each row, ties by id."""
    missing = k - items.shape[1]
    if missing > 0:  # several beams of a user that has too few allowed items may hold one node
        items = F.pad(items, (0, missing), value=int(items.max()))
        scores = F.pad(scores, (0, missing), value=-torch.inf)
    items, by_id = items.sort(dim=1)
    scores, by_score = scores.gather(1, by_id).sort(dim=1, descending=True, stable=True)
    return items.gather(1, by_score)[:, :k], scores[:, :k]
