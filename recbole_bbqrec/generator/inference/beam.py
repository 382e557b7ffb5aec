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

    All [B, W]; ``nodes`` and ``rows`` int64. Their order within a user has no meaning.
    """

    nodes: Tensor
    scores: Tensor
    rows: Tensor

    def take(self, users: slice) -> _Beams:
        return _Beams(self.nodes[users], self.scores[users], self.rows[users])


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
        decoder = Decoder(weights, memory, scores, groups)
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
        beams, n_open = _open_first(at, beams)
        hidden = None
        if n_open > 0:
            codes = trie.codes[level - 1][beams.nodes[:, :n_open]]  # [B, S, M]
            hidden = decoder.advance(level, codes, beams.rows[:, :n_open])  # [B, S, d]
        beams = _next_level(at, beams, hidden, num_beams)
    return _items(trie, beams, min(top_k or num_beams, trie.leaf_items.numel()), allowed)


def _first_level(
    decoder: Decoder, trie: Trie, loss: str, width: int, allowed: Allowed | None
) -> _Beams:
    """Find the best ``width`` children of the root for each user."""
    logits = decoder.logits(decoder.start().squeeze(1), 0)  # [B, M * N]
    if decoder.scores is None:
        scores, nodes = scoring.root_top(logits, trie, loss, width, _BLOCK, allowed)
    elif decoder.groups is not None:
        scores, nodes = root_top(decoder.scores, decoder.groups, logits, width)
    else:
        scores, nodes = _root_top_of_items(decoder.scores, logits, width, allowed)
    return _Beams(nodes, scores, torch.zeros_like(nodes))


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


def _open_first(at: _Level, beams: _Beams) -> tuple[_Beams, int]:
    """Put each user's beams with a choice ahead first, and count the most that a user has.

    With the "item" loss an only child has probability one, so a beam without any choice left
    needs no decoder. With the "code" loss every beam does.
    """
    if at.loss == "code":
        return beams, beams.nodes.shape[1]
    is_open = at.trie.branches[at.level - 1][beams.nodes]  # [B, W]
    order = torch.argsort(~is_open, dim=1, stable=True)
    return _Beams(*(part.gather(1, order) for part in beams)), int(is_open.sum(1).max())


def _next_level(at: _Level, beams: _Beams, hidden: Tensor | None, width: int) -> _Beams:
    """Find the best ``width`` children of each user's beams.

    ``hidden`` [B, S, d] belongs to the first S beams; the others have a single child each.
    """
    trie = at.trie
    first, counts = trie.children(at.level, beams.nodes)  # [B, W]
    n_open = 0 if hidden is None else hidden.shape[1]
    n_columns = trie.n_signals * trie.codebook_size
    padded = counts.numel() * int(counts.max())
    logits_fit = len(counts) * n_open * n_columns <= 4 * _BLOCK
    if logits_fit and padded <= _PADDED + 2 * int(counts.sum()):
        return _next_of_padded(at, beams, hidden, width)
    parts = []
    for users in ragged.chunks(counts.sum(1) + n_open * n_columns, _BLOCK):
        held = beams.take(users)
        owner, child = ragged.expand(first[users].flatten(), counts[users].flatten())  # [E]
        gain = held.scores.flatten()[owner]  # [E]
        if hidden is not None:
            scores = at.decoder.scores
            items = None if scores is None else scores.take(users)
            gain = gain + _gain(at, hidden[users], items, owner, child, held.nodes.shape[1])
        share = _share_at(at, child, gain.dtype)
        gain = gain if share is None else gain + share
        if at.allowed is not None:
            user = owner // held.nodes.shape[1] + users.start
            gain = gain.masked_fill(at.allowed.is_closed(at.level, user, child), -torch.inf)
        grid, start = _rows(gain, counts[users].sum(1), -torch.inf)
        # Candidates suffice: every beam has a child, and a level with fewer nodes than the width
        # was kept whole.
        best, chosen = best_of_rows(grid, min(width, len(trie.codes[at.level])))
        chosen = chosen + start[:, None]  # [b, W']
        row = owner[chosen] % held.nodes.shape[1]
        # A beam without a decoder row has no choice ahead, so its row is never read.
        parts.append(_Beams(child[chosen], best, row.clamp_(max=max(n_open - 1, 0))))
    return _Beams(*(torch.cat(part) for part in zip(*parts)))


def _next_of_padded(at: _Level, beams: _Beams, hidden: Tensor | None, width: int) -> _Beams:
    """Do :func:`_next_level` with children padded to the widest node: far fewer operators."""
    first, counts = at.trie.children(at.level, beams.nodes)  # [B, W]
    n_open, widest = 0 if hidden is None else hidden.shape[1], int(counts.max())
    place = torch.arange(widest, device=first.device)
    exists = place < counts.unsqueeze(-1)  # [B, W, C]
    child = torch.where(exists, first.unsqueeze(-1) + place, first.unsqueeze(-1))
    scores = beams.scores.unsqueeze(-1).expand(child.shape)  # [B, W, C]
    if hidden is not None:
        gain = _padded_gain(at, hidden, child[:, :n_open], exists[:, :n_open])
        scores = torch.cat([scores[:, :n_open] + gain, scores[:, n_open:]], dim=1)
    share = _share_at(at, child, scores.dtype)
    scores = scores if share is None else scores + share
    if at.allowed is not None:
        user = torch.arange(len(child), device=child.device)[:, None, None].expand_as(child)
        exists = exists & ~at.allowed.is_closed(at.level, user, child)
    scores = scores.masked_fill(~exists, -torch.inf).flatten(1)
    best, chosen = best_of_rows(scores, min(width, len(at.trie.codes[at.level])))
    rows = chosen.div(widest, rounding_mode="floor").clamp_(max=max(n_open - 1, 0))
    return _Beams(child.flatten(1).gather(1, chosen), best, rows)


def _padded_gain(at: _Level, hidden: Tensor, child: Tensor, exists: Tensor) -> Tensor:
    """Score children by log-probability given parents, [B, S, C]; some do not exist.

    ``hidden`` [B, S, d].
    """
    logits = at.decoder.logits(hidden, at.level)  # [B, S, M * N]
    if at.loss == "code":
        logits = scoring.code_log_probs(logits, at.trie.n_signals)
    columns = at.trie.columns(at.level, child).flatten(2)  # [B, S, C * M]
    scores = logits.gather(2, columns).view(*child.shape, -1).sum(-1)
    if at.decoder.scores is not None:
        row = exists.nonzero()[:, 0]
        scores[exists] += at.decoder.scores.masses(at.level, row, child[exists])
    if at.loss == "item":
        total = scores.masked_fill(~exists, -torch.inf).logsumexp(2, keepdim=True)
        scores = scores - total
    return scores


def _gain(
    at: _Level,
    hidden: Tensor,
    items: ItemScores | None,
    owner: Tensor,
    child: Tensor,
    width: int,
) -> Tensor:
    """Score children by log-probability given parents, [E]; 0 for those of beams not decoded.

    ``hidden`` [b, S, d] of the first S of ``width`` beams; ``items`` of the b users, if there is
    an item head; ``owner`` indexes b * width.
    """
    n_open = hidden.shape[1]
    decoded = owner % width < n_open  # [E]
    every = n_open == width
    row = owner if every else (owner // width * n_open + owner % width)[decoded]
    nodes = child if every else child[decoded]
    masses = None if items is None else items.masses(at.level, row // n_open, nodes)
    logits = at.decoder.logits(hidden.flatten(0, 1), at.level)  # [b * S, M * N]
    scores = scoring.child_scores(logits, at.trie, at.level, row, nodes, at.loss, masses)
    if every:
        return scores
    gain = torch.zeros(owner.shape, dtype=scores.dtype, device=owner.device)
    gain[decoded] = scores
    return gain


def _share_at(at: _Level, nodes: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return the leaf's term of an item's score; None above the last level and with "code"."""
    if at.level < at.trie.levels - 1 or at.loss == "code":
        return None
    return scoring.leaf_share(at.trie, nodes, dtype)


def _rows(values: Tensor, counts: Tensor, fill: float) -> tuple[Tensor, Tensor]:
    """Lay values out by user: ``values`` [E], ``counts`` int64 [b] -> [b, max count].

    Also returns where each user's values start, int64 [b].
    """
    start = counts.cumsum(0) - counts
    user, place = ragged.expand(torch.zeros_like(counts), counts)
    grid = values.new_full((len(counts), int(counts.max())), fill)
    grid[user, place] = values
    return grid, start


def _items(trie: Trie, beams: _Beams, k: int, allowed: Allowed | None) -> tuple[Tensor, Tensor]:
    """List the items of the beams' leaves, best first and ties by id: two [B, k]."""
    if len(trie.leaf_items) == len(trie.codes[-1]):  # one item a leaf
        return _by_score(trie.leaf_items[beams.nodes], beams.scores, k)
    first = trie.leaf_ptr[beams.nodes]
    counts = trie.leaf_ptr[beams.nodes + 1] - first  # [B, W]
    results = []
    for users in ragged.chunks(counts.sum(1), _BLOCK):
        owner, place = ragged.expand(first[users].flatten(), counts[users].flatten())
        per_user = counts[users].sum(1)
        items, _ = _rows(trie.leaf_items[place], per_user, torch.iinfo(torch.int64).max)
        values = beams.scores[users].flatten()[owner]
        if allowed is not None:
            user = owner // beams.nodes.shape[1] + users.start
            values = values.masked_fill(allowed.is_excluded(user, place), -torch.inf)
        scores, _ = _rows(values, per_user, -torch.inf)
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
