"""Sequence encoders f of Eq. 10 over item vectors: causal self-attention, session graphs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEQUENCE_ENCODERS = ("sasrec", "srgnn")


class SelfAttentionEncoder(nn.Module):
    """SASRec (Kang and McAuley, 2018) over given vectors, as a pre-norm transformer.

    Item vectors of width ``vector_dim`` are projected to ``hidden``, and the states back.
    Sequences are right padded, so the causal mask alone hides the padding from real positions.
    """

    def __init__(
        self,
        vector_dim: int,
        hidden: int,
        layers: int,
        heads: int,
        max_history: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.max_history = max_history
        self.project_in = nn.Linear(vector_dim, hidden)
        self.position = nn.Parameter(0.02 * torch.randn(max_history, hidden))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([_Block(hidden, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(hidden)
        self.project_out = nn.Linear(hidden, vector_dim)

    def forward(self, vectors: Tensor, items: Tensor) -> Tensor:
        """Encode vectors [B, T, V] of items int64 [B, T] (not read here) as states [B, T, V].

        State t has seen positions 0..t only. Raises ValueError when T exceeds ``max_history``.
        """
        length = vectors.shape[1]
        if length > self.max_history:
            raise ValueError(f"history of {length} items exceeds max_history={self.max_history}")
        x = self.dropout(self.project_in(vectors) + self.position[:length])  # [B, T, H]
        for block in self.blocks:
            x = block(x)
        return self.project_out(self.norm(x))


class _Block(nn.Module):
    """One pre-norm transformer layer with causal attention."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.feed_norm = nn.LayerNorm(hidden)
        self.feed_in = nn.Linear(hidden, 4 * hidden)
        self.feed_out = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, T, H/heads] each
        # Not torch's fused kernel, which takes three to four times as long at 20 positions.
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # [B, heads, T, T]
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, length, hidden)  # [B, T, H]
        x = x + self.dropout(self.attention_out(mixed))
        return x + self.dropout(self.feed_out(F.gelu(self.feed_in(self.feed_norm(x)))))


class SessionGraphEncoder(nn.Module):
    """SR-GNN (Wu et al., 2019): a gated graph network over each prefix's item graph.

    The nodes of a prefix are its distinct items, and an edge leads from each item to the next.
    The state of a prefix combines its last item with an attention over all its items. P prefixes
    are P graphs of T nodes and cost several times the self-attention encoder.
    """

    def __init__(self, vector_dim: int, hidden: int, layers: int, max_history: int) -> None:
        super().__init__()
        self.layers, self.max_history = layers, max_history
        self.project_in = nn.Linear(vector_dim, hidden)
        self.edge_in = nn.Linear(hidden, hidden)
        self.edge_out = nn.Linear(hidden, hidden)
        self.cell = nn.GRUCell(2 * hidden, hidden)
        self.attend_last = nn.Linear(hidden, hidden)
        self.attend_all = nn.Linear(hidden, hidden, bias=False)
        self.attend_score = nn.Linear(hidden, 1, bias=False)
        self.project_out = nn.Linear(2 * hidden, vector_dim)

    def forward(self, vectors: Tensor, items: Tensor) -> Tensor:
        """Encode vectors [B, T, V] of items int64 [B, T], right padded with 0, as states [B, T, V].

        State t has seen positions 0..t only; states at padding are zero. Raises ValueError when
        T exceeds ``max_history``.
        """
        length = vectors.shape[1]
        if length > self.max_history:
            raise ValueError(f"history of {length} items exceeds max_history={self.max_history}")
        row, last = (items > 0).nonzero(as_tuple=True)  # [P] each: one prefix per real position
        node = _first_positions(items)[row]  # [P, T] node of every position
        state = self.project_in(vectors)[row]  # [P, T, H]; only the nodes' rows matter
        incoming, outgoing = (graph.to(state.dtype) for graph in _prefix_graphs(node, last))
        for _ in range(self.layers):
            message = torch.cat(
                [incoming @ self.edge_in(state), outgoing @ self.edge_out(state)], dim=-1
            )  # [P, T, 2H]
            state = self.cell(message.flatten(0, 1), state.flatten(0, 1)).view_as(state)
        states = self._read_out(state, node, last)  # [P, V]
        full = states.new_zeros(*items.shape, states.shape[-1])  # [B, T, V]
        return full.index_put((row, last), states)

    def _read_out(self, state: Tensor, node: Tensor, last: Tensor) -> Tensor:
        """Read states [P, V] from node states [P, T, H], given node [P, T] and last [P]."""
        by_position = state.gather(1, node.unsqueeze(-1).expand_as(state))  # [P, T, H]
        final = by_position[torch.arange(len(last), device=last.device), last]  # [P, H]
        scores = self.attend_score(
            torch.sigmoid(self.attend_last(final).unsqueeze(1) + self.attend_all(by_position))
        )  # [P, T, 1]
        seen = torch.arange(node.shape[1], device=last.device) <= last.unsqueeze(1)  # [P, T]
        summary = (scores * seen.unsqueeze(-1) * by_position).sum(1)  # [P, H]
        return self.project_out(torch.cat([final, summary], dim=-1))


def _first_positions(items: Tensor) -> Tensor:
    """Find the first position int64 [B, T] of each item of the rows items [B, T]."""
    same = items.unsqueeze(2) == items.unsqueeze(1)  # [B, T, T]
    return same.to(torch.uint8).argmax(-1)


def _prefix_graphs(node: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Row-normalised adjacencies, two float [P, T, T], of prefixes: node [P, T], last [P].

    ``outgoing[p, a, b]`` is 1 / (number of distinct successors of a) if b follows a within the
    prefix; ``incoming[p, a, b]`` likewise if b precedes a.
    """
    n_prefixes, length = node.shape
    target = torch.arange(1, length, device=node.device)  # [T-1] position an edge leads to
    inside = (target <= last.unsqueeze(1)).float()  # [P, T-1]
    flat = node[:, :-1] * length + node[:, 1:]  # [P, T-1] cell of the edge
    edges = torch.zeros(n_prefixes, length * length, device=node.device)
    edges = edges.scatter_reduce(1, flat, inside, reduce="amax").view(-1, length, length)
    outgoing = edges / edges.sum(-1, keepdim=True).clamp(min=1)
    transposed = edges.transpose(1, 2)
    incoming = transposed / transposed.sum(-1, keepdim=True).clamp(min=1)
    return incoming, outgoing
