"""The two sequence encoders see a prefix each, and SR-GNN equals its node-by-node form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recbole_bbqrec.tokenizer.sequence_encoders import SelfAttentionEncoder, SessionGraphEncoder

WIDTH, HISTORY = 6, 7


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def encoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "srgnn":
        return SessionGraphEncoder(WIDTH, 8, 2, HISTORY).double().eval()
    return SelfAttentionEncoder(WIDTH, 8, 2, 2, HISTORY, 0.3).double().eval()


@pytest.mark.parametrize("name", ["sasrec", "srgnn"])
def test_states_see_their_prefix_and_nothing_else(name: str) -> None:
    """Causality, padding and batch composition at once: each prefix alone gives its state."""
    model, table = encoder(name), draw(10, WIDTH)
    table[0] = 0
    items = torch.tensor([[3, 5, 3, 2, 5, 3, 0], [1, 2, 0, 0, 0, 0, 0], [4, 4, 4, 9, 8, 7, 6]])
    states = model(table[items], items)
    assert states.shape == (3, 7, WIDTH)
    for row, position in (items > 0).nonzero().tolist():
        prefix = items[row : row + 1, : position + 1]
        alone = model(table[prefix], prefix)[0, -1]
        torch.testing.assert_close(states[row, position], alone)


@pytest.mark.parametrize("name", ["sasrec", "srgnn"])
def test_earlier_items_matter_and_long_histories_are_refused(name: str) -> None:
    model, table = encoder(name), draw(10, WIDTH)
    items, changed = torch.tensor([[3, 5, 2]]), torch.tensor([[3, 6, 2]])
    assert not torch.allclose(
        model(table[items], items)[0, -1], model(table[changed], changed)[0, -1]
    )
    long = torch.ones(1, HISTORY + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="max_history"):
        model(table[long], long)


@pytest.mark.parametrize("name", ["sasrec", "srgnn"])
def test_every_parameter_learns(name: str) -> None:
    model, table = encoder(name), draw(10, WIDTH)
    items = torch.tensor([[3, 5, 3, 2, 5, 3, 1]])
    model(table[items], items).pow(2).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())


def graph_states(model: SessionGraphEncoder, vectors: Tensor, items: list[int]) -> Tensor:
    """SR-GNN for one whole session, written from the paper with dictionaries of nodes."""
    nodes = sorted(set(items), key=items.index)
    edges = sorted({(nodes.index(a), nodes.index(b)) for a, b in zip(items, items[1:])})
    state = model.project_in(torch.stack([vectors[items.index(node)] for node in nodes]))
    for _ in range(model.layers):
        out, back = model.edge_out(state), model.edge_in(state)
        rows = []
        for node in range(len(nodes)):
            after, before = [b for a, b in edges if a == node], [a for a, b in edges if b == node]
            zero = torch.zeros_like(state[0])
            received = sum((back[a] for a in before), zero) / max(len(before), 1)
            sent = sum((out[b] for b in after), zero) / max(len(after), 1)
            rows.append(model.cell(torch.cat([received, sent])[None], state[node][None])[0])
        state = torch.stack(rows)
    sequence = torch.stack([state[nodes.index(item)] for item in items])
    gate = torch.sigmoid(model.attend_last(sequence[-1]) + model.attend_all(sequence))
    summary = (model.attend_score(gate) * sequence).sum(0)
    return model.project_out(torch.cat([sequence[-1], summary]))


def test_session_graph_equals_the_node_by_node_form() -> None:
    model, table = encoder("srgnn"), draw(10, WIDTH)
    assert isinstance(model, SessionGraphEncoder)
    session = [3, 5, 3, 2, 5, 3, 5]  # repeated items and a repeated edge
    items = torch.tensor([session])
    states = model(table[items], items)
    for length in range(1, len(session) + 1):
        expected = graph_states(model, table[items][0], session[:length])
        torch.testing.assert_close(states[0, length - 1], expected)
