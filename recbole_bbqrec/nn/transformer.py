"""Pre-norm transformer parts that the single-phase models share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.nn.dropout import Dropout

INIT_STD = 0.02  # of embeddings and matrices, as RecBole's SASRec


def xavier_weights(module: nn.Module) -> None:
    """Draw every matrix and table below ``module`` by Glorot's normal rule; others stay."""
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            nn.init.xavier_normal_(parameter)


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) matrices and embeddings, zero biases; for ``Module.apply``."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return bool [1, T, T], true where a position may look: itself and before."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()


class Attention(nn.Module):
    """Multi-head attention, residual included; normalises its queries (and memory, if self)."""

    def __init__(
        self, hidden: int, heads: int, dropout: float, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = Dropout(dropout)
        self.attention_dropout = Dropout(attention_dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """Attend: x [B, T, H], mask bool [B or 1, T or 1, S] (true: may look), memory [B, S, H].

        Without ``memory`` this is self-attention. Every query must be allowed one key at least.
        """
        batch, length, hidden = x.shape
        normed = self.norm(x)
        source = normed if memory is None else memory
        query = self.query(normed).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = (
            part.view(batch, source.shape[1], self.heads, -1).transpose(1, 2)  # [B, h, S, H/h]
            for part in self.key_value(source).chunk(2, dim=-1)
        )
        # Written out: on a CPU torch's fused kernel is several times slower at these lengths.
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # [B, h, T, S]
        weights = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
        mixed = (
            (self.attention_dropout(weights) @ value).transpose(1, 2).reshape(batch, length, hidden)
        )  # [B, T, H]
        result: Tensor = x + self.dropout(self.out(mixed))
        return result


class FeedForward(nn.Module):
    """Two-layer perceptron with GELU, residual and normalisation included."""

    def __init__(self, hidden: int, inner: int, dropout: float, inner_dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, inner)
        self.outer = nn.Linear(inner, hidden)
        self.dropout = Dropout(dropout)
        self.inner_dropout = Dropout(inner_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, H] -> [B, T, H]."""
        activated = self.inner_dropout(F.gelu(self.inner(self.norm(x))))
        result: Tensor = x + self.dropout(self.outer(activated))
        return result


class CausalEncoder(nn.Module):
    """SASRec's encoder (Kang and McAuley, 2018) with pre-norm layers over given item vectors.

    Sequences are right padded, so the causal mask alone keeps padding out of every real state,
    and one pass gives the states of all prefixes. With ``input_norm`` the item vectors are
    normalised first, or the first layer's output would drown small embeddings. Positions are added
    after that, which validated better (docs/findings.md), or with ``norm_positions`` before it.
    They count from the first item, or with ``from_last`` from a row's last.
    """

    def __init__(
        self,
        hidden: int,
        layers: int,
        heads: int,
        inner: int,
        max_length: int,
        dropout: float,
        input_norm: bool = True,
        *,
        attention_dropout: float = 0.0,
        norm_positions: bool = False,
        from_last: bool = False,
    ) -> None:
        super().__init__()
        self.norm_positions, self.from_last = norm_positions, from_last
        self.input_norm = nn.LayerNorm(hidden) if input_norm else nn.Identity()
        self.position = nn.Embedding(max_length, hidden)
        self.dropout = Dropout(dropout)
        self.attentions = nn.ModuleList(
            [Attention(hidden, heads, dropout, attention_dropout) for _ in range(layers)]
        )
        self.feeds = nn.ModuleList([FeedForward(hidden, inner, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(hidden)

    def forward(self, vectors: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode item vectors [B, T, H] as states [B, T, H]; state t has seen items 0..t only.

        ``valid`` bool [B, T] marks items that are no padding; None: all.
        """
        length = vectors.shape[1]
        positions = self.positions(vectors, valid)
        if self.norm_positions:
            x = self.dropout(self.input_norm(vectors + positions))  # [B, T, H]
        else:
            x = self.dropout(self.input_norm(vectors) + positions)  # [B, T, H]
        mask = causal_mask(length, x.device)
        for attention, feed in zip(self.attentions, self.feeds):
            x = feed(attention(x, mask))
        states: Tensor = self.norm(x)
        return states

    def positions(self, vectors: Tensor, valid: Tensor | None) -> Tensor:
        """Return the embeddings of the places in ``vectors`` [B, T, H]: [T, H] or [B, T, H]."""
        if not self.from_last:
            return self.position.weight[: vectors.shape[1]]
        if valid is None:
            valid = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
        place = torch.arange(1, vectors.shape[1] + 1, device=vectors.device)
        from_last: Tensor = self.position((valid.sum(1, keepdim=True) - place).clamp(min=0))
        return from_last
