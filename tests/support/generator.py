"""Small catalogues and networks, and slow reference implementations, for the generator's tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings

VECTOR_DIM = 6


def small_catalogue(
    n_items: int = 30,
    levels: int = 3,
    signals: int = 2,
    codes: int = 3,
    duplicates: int = 4,
    feature_dim: int = 0,
) -> Catalogue:
    """Few codes, so that nodes branch; the last ``duplicates`` items copy the first ones."""
    ids = torch.randint(0, codes, (n_items, levels, signals))
    ids[0] = 0
    if duplicates:
        ids[n_items - duplicates :] = ids[1 : 1 + duplicates]
    vectors = torch.randn(n_items, VECTOR_DIM, dtype=torch.float64)
    features = torch.randn(n_items, feature_dim, dtype=torch.float64) if feature_dim else None
    return Catalogue.build(ids, vectors, codes, features=features)


def small_generator(catalogue: Catalogue, **options: Any) -> Generator:
    """A float64 network with large random weights, so that predictions are far from uniform."""
    _, levels, signals = catalogue.codes.shape
    settings: dict[str, Any] = {
        "levels": levels,
        "codebook_size": catalogue.trie.codebook_size,
        "n_signals": signals,
        "vector_dim": VECTOR_DIM,
        "code_dim": 5,
        "hidden_size": 8,
        "n_heads": 2,
        "inner_size": 12,
        "decoder_layers": 2,
        "history_tokens": "level",
        "generation_loss": "code",
        "item_embedding": False,
        "item_head": False,
        "repeat_logit": False,
        "dropout": 0.0,
        "max_history": 6,
        "similarity_buckets": 10,
    }
    settings.update(options)
    generator = Generator(GeneratorSettings(**settings)).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return generator.eval()


def histories(catalogue: Catalogue, lengths: list[int], width: int) -> Tensor:
    """Random histories of the given lengths, right padded to ``width``."""
    items = torch.randint(1, catalogue.n_items, (len(lengths), width))
    return items * (torch.arange(width) < torch.tensor(lengths)[:, None])


@torch.no_grad()
def level_states(
    generator: Generator, catalogue: Catalogue, history: list[int], path: Tensor
) -> tuple[Memory, Tensor]:
    """States [L, d] of every level for one history and one path [L, M], without any batching."""
    memory = generator.encode(catalogue, torch.tensor([history]))
    hidden = generator.decoder.every_level(
        memory,
        generator.decoder.keys_values(memory),
        path[None, :-1],
        Packing(torch.ones(1, 1, dtype=torch.bool)),
        torch.tensor([[len(history) - 1]]),
    )
    return memory, hidden[0]


@torch.no_grad()
def level_logits(
    generator: Generator, catalogue: Catalogue, history: list[int], path: Tensor
) -> list[Tensor]:
    """Logits [M, N] of every level for one history and one path [L, M]."""
    memory, hidden = level_states(generator, catalogue, history, path)
    signals = path.shape[1]
    return [generator.logits(memory, hidden[j], j).view(signals, -1) for j in range(path.shape[0])]


def slow_item_score(
    generator: Generator, catalogue: Catalogue, history: list[int], item: int
) -> float:
    """Log-probability of one item by its definition, with Python loops over a set of tuples."""
    codes = [tuple(map(tuple, row)) for row in catalogue.codes.tolist()]
    path, existing = codes[item], [codes[i] for i in catalogue.trie.leaf_items.tolist()]
    score = 0.0
    for level, logits in enumerate(
        level_logits(generator, catalogue, history, catalogue.codes[item])
    ):
        if generator.config.generation_loss == "code":
            logs = logits.log_softmax(-1)
            score += sum(float(logs[m, c]) for m, c in enumerate(path[level]))
        else:
            siblings = {other[level] for other in existing if other[:level] == path[:level]}
            total = {s: sum(float(logits[m, c]) for m, c in enumerate(s)) for s in siblings}
            peak = max(total.values())
            mass = sum(math.exp(value - peak) for value in total.values())
            score += total[path[level]] - peak - math.log(mass)
    if generator.config.generation_loss == "item":
        score -= math.log(sum(other == path for other in existing))
    return score


@torch.no_grad()
def item_score(
    generator: Generator,
    catalogue: Catalogue,
    history: list[int],
    item: int,
    memory: Memory | None = None,
) -> float:
    """The item head's h . (e_i + W f_i) + r, by hand; ``memory`` is the encoded history."""
    if memory is None:
        memory, _ = level_states(generator, catalogue, history, catalogue.codes[item])
    content = catalogue.vectors if catalogue.features is None else catalogue.features
    assert content is not None
    key = generator.item_head.content.weight @ content[item]
    if generator.config.item_embedding:
        key = key + generator.encoder.items.weight[item]
    score = float(memory.states[-1, -1] @ key)
    if generator.config.repeat_logit:
        for ago, seen in enumerate(reversed(history)):
            score += 10 * float(generator.item_head.repeat.logits[ago]) if seen == item else 0.0
    return score


def headed_score(
    generator: Generator,
    catalogue: Catalogue,
    history: list[int],
    item: int,
    bonus: Callable[[int], float] = lambda item: 0.0,
) -> float:
    """:func:`slow_item_score` with an item head, masses added one by one, for all items.

    ``bonus``: what is added to an item's score.
    """
    tuples = {
        i: [tuple(t) for t in catalogue.codes[i].tolist()] for i in range(1, catalogue.n_items)
    }
    memory, _ = level_states(generator, catalogue, history, catalogue.codes[item])
    scores = {i: item_score(generator, catalogue, history, i, memory) + bonus(i) for i in tuples}
    logits = level_logits(generator, catalogue, history, catalogue.codes[item])
    score = 0.0
    for level, table in enumerate(logits):
        before, total = tuples[item][:level], {}
        for token in {t[level] for t in tuples.values() if t[:level] == before}:
            below = [i for i, t in tuples.items() if t[: level + 1] == [*before, token]]
            codes = sum(float(table[m, c]) for m, c in enumerate(token))
            total[token] = codes + math.log(sum(math.exp(scores[i]) for i in below))
        score += total[tuples[item][level]] - math.log(sum(math.exp(v) for v in total.values()))
    return score - math.log(sum(t == tuples[item] for t in tuples.values()))
