"""Answers requests on a loaded bundle: many at once, each filter once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.answers.filters import (
    Condition,
    first_of,
    item_table,
    items_that,
    mask_of,
    warn_of_missing_rows,
)
from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.quick_start import load_run
from recbole_bbqrec.run_files.finished_run import FinishedRun

_FILTERS = 64  # masks kept, the last ones used
_NEIGHBOURS = 10


class UnknownError(UserError):
    """A user or item that the data set does not have."""


@dataclass(frozen=True)
class Question:
    """One request; either ``user`` or ``history`` is given, and filters are tuples of tokens.

    ``fallback`` allows popular items for an unknown user, or a history without a known item.
    """

    k: int
    user: str | None = None
    history: tuple[str, ...] = ()
    exclude_seen: bool = False
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    fallback: bool = False

    @property
    def popular(self) -> bool:
        """True where nothing is known, so that the items with the most events are listed."""
        return self.user is None and not self.history

    @property
    def group(self) -> tuple[Any, ...]:
        """Key that questions answered together have in common."""
        return self.k, self.user is None, self.popular, self.allow, self.deny, self.where


@dataclass(frozen=True)
class Answer:
    """The best items, with ``item``, ``score`` and ``title`` each, and unknown items left out."""

    items: list[dict[str, Any]]
    unknown: list[str]


class Engine:
    """A bundle at work.

    Attributes:
        run: directory of the run that was loaded, links resolved.
        items: table with the columns of conditions; None: the run's own.

    Raises:
        UserError: there is no finished run at ``path``, a file of it is damaged, or ``items`` is
            unreadable.
    """

    def __init__(self, path: Path, items: Path | None = None) -> None:
        self.run = FinishedRun.at(Path(path).resolve()).files.directory
        self.items = items
        self.recommender: Recommender = load_run(self.run).recommender()
        self._masks: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._check_items()
        first = str(self.recommender.item_tokens[1])
        # The first answer of a generative model compiles its weights and builds the trie.
        if isinstance(self.recommender.model, GenerativeRecommender):
            self.answer([Question(k=1, history=(first,))])

    @property
    def name(self) -> str:
        """Model and data set, for people."""
        return f"{self.recommender.config['model']} on {self.recommender.config['dataset']}"

    def check(self, question: Question) -> tuple[Question, list[str]]:
        """Return the question without an unknown user or item, and all its unknown items.

        Raises:
            UnknownError: without `fallback`, the user is unknown or no item of the history known.
            UserError: a condition is invalid, no item is allowed or known of ``allow``, or k is too
                large.
        """
        known = self.recommender
        if question.k >= known.n_items:
            raise UserError(f"k is {question.k}; the catalogue has {known.n_items - 1} items.")
        if question.allow and not any(item in known.item_ids for item in question.allow):
            raise UserError(f"No item of `allow` is known ({first_of(question.allow)}).")
        self.mask(question)
        listed = (*question.history, *(question.allow or ()), *question.deny)
        unknown = list(dict.fromkeys(item for item in listed if item not in known.item_ids))
        if question.user in known.user_ids:
            return question, unknown
        if question.user is not None and not question.fallback:
            raise UnknownError(f"There is no user {question.user!r}. Give a history instead.")
        history = tuple(item for item in question.history if item in known.item_ids)
        if not history and not question.fallback:
            empty = "The history is empty."
            raise UnknownError("No item of the history is known." if question.history else empty)
        return replace(question, user=None, history=history), unknown

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer checked questions of one :attr:`Question.group`."""
        first, known = questions[0], self.recommender
        if first.popular:
            items = known.popular(first.k, self.mask(first)).tolist()
            return [Answer(self._shown(items, [None] * first.k), []) for _ in questions]
        if first.user is not None:
            users = [str(question.user) for question in questions]
            rows, seen = known.rows_of_users(users), known.seen_by(users)
        else:
            histories = [list(question.history) for question in questions]
            rows = known.rows_of_histories(histories)
            ids = [torch.from_numpy(known.ids("item", history)) for history in histories]
            seen = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        excluded = None
        if any(question.exclude_seen for question in questions):
            asked = torch.tensor([question.exclude_seen for question in questions])
            excluded = seen * asked[:, None]
        ids_of, scores = known.best(rows, first.k, self.mask(first), excluded)
        return [Answer(self._shown(*pair), []) for pair in zip(ids_of.tolist(), scores.tolist())]

    def item(self, token: str) -> dict[str, Any]:
        """Describe an item: title, semantic ID by signal, and the nearest items by its vector.

        Raises:
            UnknownError: the item is unknown.
        """
        known, model = self.recommender, self.recommender.model
        if token not in known.item_ids:
            raise UnknownError(f"There is no item {token!r}.")
        number = known.item_ids[token]
        described: dict[str, Any] = {"item": token, "title": known.titles.get(token, "")}
        if isinstance(model, GenerativeRecommender):
            codes = model.codes[number].tolist()  # [L][M]
            signals = model.signals_of(known.config)
            described["semantic_id"] = {
                signal: [level[place] for level in codes] for place, signal in enumerate(signals)
            }
            vectors = model.catalogue.vectors
            if vectors is not None:
                close = vectors @ vectors[number]
                close[[0, number]] = -torch.inf
                best = close.topk(min(_NEIGHBOURS, known.n_items - 2))
                pairs = zip(best.indices.tolist(), best.values.tolist())
                described["neighbours"] = [
                    {"item": str(known.item_tokens[other]), "similarity": round(value, 4)}
                    for other, value in pairs
                ]
        return described

    def mask(self, question: Question) -> Tensor | None:
        """Return the items that a question allows, bool [n_items]; None: all.

        Raises:
            UserError: a condition is invalid, or no item is left.
        """
        key = question.group[3:]
        if key == (None, (), ()):
            return None
        with self._lock:  # requests are checked on several threads
            mask = self._masks.pop(key, None)
            if mask is not None:
                self._masks[key] = mask  # the last one used
        if mask is None:
            mask = self._made(question)
            with self._lock:
                self._masks[key] = mask
                while len(self._masks) > _FILTERS:
                    self._masks.popitem(last=False)
        return mask

    def _table(self) -> Path:
        config = self.recommender.config
        return self.items or item_table(Path(config["data_path"]), config["dataset"])

    def _check_items(self) -> None:
        """Warn of items without a row in the table of conditions, where there is one."""
        try:
            warn_of_missing_rows(self._table(), self.recommender.item_ids)
        except UserError:
            if self.items is not None:  # the run's own table need not serve conditions
                raise

    def _made(self, question: Question) -> Tensor:
        known = self.recommender
        mask = known.every_item()
        if question.allow is not None:
            mask &= mask_of(known.item_ids, known.n_items, question.allow)
        if question.deny:
            mask &= ~mask_of(known.item_ids, known.n_items, question.deny)
        if question.where:
            conditions = [Condition.parse(text) for text in question.where]
            tokens = items_that(conditions, self._table())
            mask &= mask_of(known.item_ids, known.n_items, tokens)
        if not bool(mask.any()):
            raise UserError("No item of the catalogue meets the filters. Widen them.")
        return mask

    def _shown(self, ids: list[int], scores: Sequence[float | None]) -> list[dict[str, Any]]:
        tokens, titles = self.recommender.item_tokens, self.recommender.titles
        shown = []
        for number, score in zip(ids, scores):
            if number > 0:
                token = str(tokens[number])
                entry = {"item": token, "score": None if score is None else round(score, 6)}
                shown.append({**entry, "title": titles[token]} if token in titles else entry)
        return shown
