"""A live session of one user: events come one by one, lists are asked for in between."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.errors import UserError, listed
from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.inference.allowed import Allowed
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.compiled_weights import compiled
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.inference.one_user import OneUser
from recbole_bbqrec.loaded_run import LoadedRun, allowed_items
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.runtime import autocast


class Recommended(NamedTuple):
    """An item and its score, as in :meth:`LoadedRun.recommend`."""

    item: str
    score: float


class Session:
    """One user's session on a loaded run.

    The vocabulary, the trie and the weights are at hand from the first call on, and what the
    encoder made of the history is kept, whatever lists are asked for. An event costs the default
    network one more position. Not for several threads at once.

    Parameters
    ----------
    run
        A loaded run of any model but those that learn a vector for each user.
    history
        Item tokens, oldest first.

    Raises
    ------
    UserError
        An item is unknown, or ``history`` is no list.

    Examples
    --------
    >>> from recbole_bbqrec import Session, load_run
    >>> session = Session(load_run("saved/my-run"), ["i0398"])
    >>> session.add("i0395")
    >>> len(session.recommend(k=5))
    5
    """

    def __init__(self, run: LoadedRun | Recommender, history: Sequence[Hashable] = ()) -> None:
        self.recommender = run.recommender() if isinstance(run, LoadedRun) else run
        self._history: list[str] = []
        self._memory: Memory | None = None
        self._live: OneUser | None = None
        for item in listed("history", history):
            self.add(item)

    @property
    def history(self) -> tuple[str, ...]:
        """Item tokens of the session, oldest first."""
        return tuple(self._history)

    def add(self, item: Hashable) -> None:
        """Append an event.

        Raises:
            UserError: the item is unknown; the session is then unchanged.
        """
        token = str(item)
        self.recommender.ids("item", [token])
        self._history.append(token)
        self._memory = None

    def recommend(
        self,
        k: int = 10,
        exclude_history: bool = False,
        allowed: Tensor | None = None,
        allow: Sequence[Hashable] | None = None,
        deny: Sequence[Hashable] | None = None,
    ) -> list[Recommended]:
        """Return the best next items, best first; fewer than k where fewer are allowed.

        Parameters
        ----------
        k
            Number of items, at least 1.
        exclude_history
            Leave out all items of the session.
        allowed
            bool [n_items] by internal id, the items that may be recommended; None: all.
        allow, deny
            Tokens of the items that may be recommended, and of those that may not, instead of
            ``allowed``.

        Raises
        ------
        UserError
            The session has no event yet, k is below 1 or above the number of items, an item is
            unknown, or ``allowed`` is given beside ``allow`` or ``deny``.
        """
        recommender = self.recommender
        if not self._history:
            raise UserError("The session has no event yet. Add one first.")
        if not 1 <= k < recommender.n_items:
            raise UserError(f"k is {k}; expected 1 to {recommender.n_items - 1}.")
        if allow is not None or deny is not None:
            if allowed is not None:
                raise UserError("recommend() takes `allowed`, or `allow` and `deny`; give one.")
            allowed = allowed_items(recommender, allow, deny)
        excluded = None
        if exclude_history:
            excluded = torch.from_numpy(recommender.ids("item", self._history))[None]
        if isinstance(recommender.model, GenerativeRecommender):
            items, values = self._search(recommender.model, k, allowed, excluded)
        else:
            rows = recommender.rows_of_histories([self._history])
            ids, scores = recommender.best(rows, k, allowed, excluded)
            items, values = ids[0].tolist(), scores[0].tolist()
        tokens = recommender.item_tokens
        return [
            Recommended(str(tokens[item]), score)
            for item, score in zip(items, values)
            if score > -torch.inf
        ]

    def _search(
        self,
        model: GenerativeRecommender,
        k: int,
        allowed: Tensor | None,
        excluded: Tensor | None,
    ) -> tuple[list[int], list[float]]:
        device, dtype = model.codes.device, model.dtype
        beams = min(max(model.num_beams, k), model.n_items - 1)
        latest = self._history[-self.recommender.width :]
        items = self.recommender.ids("item", latest)
        live = self._live_on(model)
        if live is not None:
            mask = allowed
            if excluded is not None:
                mask = self.recommender.every_item() if allowed is None else allowed.clone()
                mask[excluded[0]] = False
            live.read(items.tolist())
            best, values = live.best(beams, k, None if mask is None else mask.numpy())
            return best.tolist(), values.tolist()
        only = None
        if allowed is not None or excluded is not None:
            only = Allowed.of(model.catalogue.trie, allowed)
            only = only if excluded is None else only.without(excluded.to(device))
        with torch.inference_mode(), autocast(dtype, device):
            weights = compiled(model.generator)
            if self._memory is None:
                read = torch.from_numpy(items)[None].to(device)
                self._memory = encode(model.generator, model.catalogue, read, weights)
            ids, scores = beam_search(
                model.generator, model.catalogue, self._memory, beams, k, only, weights
            )
        return ids[0].tolist(), scores[0].tolist()

    def _live_on(self, model: GenerativeRecommender) -> OneUser | None:
        """Return what reads event by event, on the weights as they are now; None if unsupported."""
        with autocast(model.dtype, model.codes.device):
            weights = compiled(model.generator)
        if not OneUser.serves(weights):
            return None
        if self._live is None or self._live.weights is not weights:
            self._live = OneUser(model.generator, model.catalogue, weights)
        return self._live
