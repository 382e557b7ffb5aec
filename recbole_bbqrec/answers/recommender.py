"""Ranks items after histories of raw tokens, for any loaded model; keeps what it needs at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_bbqrec.answers.scores import all_scores
from recbole_bbqrec.data.catalogue import SEEN, read_seen
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.metrics.collector import best_items
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.protocols import ItemDataset, RunConfig

_ROWS = 4096  # histories ranked at a time; fewer in a large catalogue, see _SCORES
_SCORES = 1 << 24  # scores held at a time, 64 MiB of float32


class Recommender:
    """A loaded model with its vocabulary.

    ``loaders`` are those of training, validation and test; ``n_items`` counts [PAD].
    """

    def __init__(
        self, config: RunConfig, model: Any, dataset: ItemDataset, loaders: Sequence[Any]
    ) -> None:
        self.config, self.model, self.dataset, self.loaders = config, model, dataset, loaders
        self.width = int(config["MAX_ITEM_LIST_LENGTH"])
        self.n_items = int(model.n_items)

    # vocabulary -----------------------------------------------------------------------------

    @cached_property
    def item_tokens(self) -> np.ndarray:
        """Raw token of each internal item id, object [n_items]."""
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        return np.array([str(token) for token in tokens], dtype=object)

    @cached_property
    def item_ids(self) -> Mapping[str, int]:
        """Internal id of each item token."""
        return {token: number for number, token in enumerate(self.item_tokens) if number > 0}

    @cached_property
    def user_ids(self) -> Mapping[str, int]:
        """Internal id of each user token."""
        tokens = self.dataset.field2id_token[self.dataset.uid_field]
        return {str(token): number for number, token in enumerate(tokens) if number > 0}

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """Title by item token; empty where the data set has none."""
        place, name = self.config["data_path"], self.config["dataset"]
        return read_titles(Path(place) / f"{name}.titles.tsv")

    def ids(self, kind: str, tokens: Sequence[str]) -> np.ndarray:
        """Return internal ids int64 [n] of tokens; ``kind`` is "user" or "item".

        Raises:
            UserError: a token is unknown.
        """
        id_of = self.user_ids if kind == "user" else self.item_ids
        try:
            return np.array([id_of[token] for token in tokens], dtype=np.int64)
        except KeyError as error:
            unknown = str(error.args[0])
            field = self.dataset.uid_field if kind == "user" else self.dataset.iid_field
            raise UserError(
                f"Unknown {kind} {unknown!r}; data set {self.config['dataset']!r} has "
                f"{len(id_of)} {kind}s after filtering.{did_you_mean(unknown, id_of)} Give raw "
                f"tokens of its column `{field}`."
            ) from None

    def every_item(self) -> Tensor:
        """Return True for every item but [PAD], bool [n_items]."""
        return torch.arange(self.n_items) > 0

    # what the model reads -------------------------------------------------------------------

    def rows_of_users(self, names: Sequence[str]) -> Interaction:
        """Return what the model reads of users by token: their latest items, all events counted."""
        users = self.ids("user", names)
        items, lengths = self._latest(names, users)
        model = self.model
        fields = {model.USER_ID: torch.from_numpy(users), model.ITEM_SEQ: items}
        return Interaction({**fields, model.ITEM_SEQ_LEN: lengths})

    def rows_of_histories(self, histories: Sequence[Sequence[str]]) -> Interaction:
        """Return what the model reads of histories of item tokens, none empty: the latest items."""
        latest = [history[-self.width :] for history in histories]
        lengths = torch.tensor([len(history) for history in latest], dtype=torch.int64)
        ids = self.ids("item", [token for history in latest for token in history])
        items = torch.zeros(len(latest), self.width, dtype=torch.int64)
        items[torch.arange(self.width) < lengths.unsqueeze(1)] = torch.from_numpy(ids)
        return Interaction({self.model.ITEM_SEQ: items, self.model.ITEM_SEQ_LEN: lengths})

    def seen_by(self, names: Sequence[str]) -> Tensor:
        """Return all items that users have events with, int64 [n, S], padded with 0.

        Those count, too, that `prepare --keep_all_items` kept apart as the core left them out.
        """
        users = self.ids("user", names)
        events = self.dataset.file_events
        if events is None:  # files that are split already: what the model reads is what is known
            seen = self._latest(names, users)[0]
        else:
            seen = _spans(events.items, *events.spans(users))
        of_users, others = self._kept_apart
        if not len(of_users):
            return seen
        first = np.searchsorted(of_users, users)
        counts = np.searchsorted(of_users, users, side="right") - first
        return torch.cat([seen, _spans(others, first, counts)], 1)

    @cached_property
    def _kept_apart(self) -> tuple[np.ndarray, np.ndarray]:
        """Users, ascending, and items of the events that `prepare` kept apart, int64 [n] each."""
        place, name = self.config["data_path"], self.config["dataset"]
        return read_seen(Path(place) / f"{name}.{SEEN}", self.user_ids, self.item_ids)

    def _latest(self, names: Sequence[str], users: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the latest items int64 [n, T] of users, right padded, and their numbers [n].

        All events of the file count, also those that a protocol leaves out. Of files that are
        split already RecBole has rows alone: what came before an event, and the event. A user's
        last row is in the test part, else in an earlier one.
        """
        width, events = self.width, self.dataset.file_events
        if events is not None:
            first, counts = events.spans(users)  # [n]
            end, length = first + counts, np.minimum(counts, width)
            place = np.arange(width)
            index = np.minimum((end - length)[:, None] + place, len(events) - 1)  # [n, T]
            latest = events.items[index].astype(np.int64) * (place < length[:, None])
            return torch.from_numpy(latest), torch.from_numpy(length)
        items = torch.zeros(len(users), width, dtype=torch.int64)
        lengths = torch.zeros(len(users), dtype=torch.int64)
        for loader in self.loaders:
            events = loader._dataset.inter_feat
            last = np.full(self.dataset.user_num, -1)
            last[events[self.dataset.uid_field].numpy()] = np.arange(len(events))
            row = torch.from_numpy(last[users])  # [n]
            having = row >= 0
            row = row[having]  # [m]
            before = events[self.model.ITEM_SEQ_LEN][row]
            grown = F.pad(events[self.model.ITEM_SEQ][row], (0, 1))  # [m, T + 1]
            grown.scatter_(1, before.unsqueeze(1), events[self.model.ITEM_ID][row].unsqueeze(1))
            full = (before == width).unsqueeze(1)
            items[having] = torch.where(full, grown[:, 1:], grown[:, :-1])
            lengths[having] = (before + 1).clamp(max=width)
        if len(users) and int(lengths.min()) == 0:
            name = names[int(lengths.argmin())]
            raise UserError(
                f"User {name!r} has a single event, and RecBole keeps no history of such users. "
                "Give its items as `histories`."
            )
        return items, lengths

    @cached_property
    def _by_events(self) -> np.ndarray:
        """Items by their number of events in the run's data, most first, int64 [n_items - 1]."""
        events = self.dataset.file_events
        if events is not None:
            items = events.items
        else:
            parts = (loader._dataset.inter_feat[self.dataset.iid_field] for loader in self.loaders)
            items = np.concatenate([part.numpy() for part in parts])
        counts = np.bincount(items, minlength=self.n_items)
        return np.argsort(-counts[1:], kind="stable") + 1

    def popular(self, k: int, allowed: Tensor | None = None) -> np.ndarray:
        """Return the k items with the most events in the run's data, int64 [k], most first.

        All events count: of training, validation and test. Ties go to the lower internal id.
        Where fewer than k items are ``allowed``, bool [n_items], the rest is 0.
        """
        best = self._by_events
        best = (best if allowed is None else best[allowed.numpy()[best]])[:k]
        return np.pad(best, (0, k - len(best)))

    # ranking --------------------------------------------------------------------------------

    def best(
        self,
        rows: Interaction,
        k: int,
        allowed: Tensor | None = None,
        excluded: Tensor | None = None,
        beams: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best items int64 [n, k] after each row, best first, and their scores [n, k].

        Args:
            rows: of :meth:`rows_of_users` or :meth:`rows_of_histories`.
            k: at least 1; a generative model widens its beam for it.
            allowed: bool [n_items], the items that may be listed; None: all.
            excluded: int64 [n, S], items that may not be listed for a row, 0 for none.
            beams: least width of a generative model's beam, beside `num_beams` and k.

        Where a row has fewer than k such items, the rest is item 0 with the score -inf.

        Raises:
            UserError: the model needs a field that the rows lack, or has diverged.
        """
        step = max(1, min(_ROWS, _SCORES // self.n_items))
        parts = []
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            without = None if excluded is None else excluded[part]
            parts.append(self._best(rows[part], k, allowed, without, beams))
        if not parts:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        ids, scores = (np.concatenate(part) for part in zip(*parts))
        return ids, scores

    @torch.no_grad()
    def _best(
        self,
        rows: Interaction,
        k: int,
        allowed: Tensor | None,
        excluded: Tensor | None,
        beams: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        model, device = self.model, self.config["device"]
        rows = rows.to(device)
        excluded = None if excluded is None else excluded.to(device)
        try:
            if isinstance(model, GenerativeRecommender):
                beams = min(max(model.num_beams, k, beams), self.n_items - 1)
                ids, scores = rank(
                    model.generator, model.catalogue, rows[model.ITEM_SEQ], beams, model.dtype,
                    allowed=allowed, excluded=excluded,
                )  # fmt: skip
                ids, scores = ids[:, :k], scores[:, :k].float()
            else:
                full = all_scores(model, rows)
                if excluded is not None:
                    full.scatter_(1, excluded, -torch.inf)
                if allowed is not None:
                    full.masked_fill_(~allowed.to(full.device), -torch.inf)
                ids = best_items(full, k)
                scores = full.gather(1, ids)
        except KeyError as error:
            if error.args[0] not in self.loaders[0]._dataset.inter_feat:
                raise
            advice = "" if model.USER_ID in rows else "give `users` instead of `histories`, or "
            raise UserError(
                f"{self.config['model']} reads the field {error} of each row, which `recommend` "
                f"does not have here: {advice}use another model."
            ) from error
        everything = allowed is None and excluded is None
        if bool(scores.isnan().any()) or (everything and not bool(scores.isfinite().all())):
            raise UserError(
                f"{self.config['model']} gives scores that are no numbers: its training has "
                "diverged. Train again with a lower --learning_rate."
            )
        ids = ids.masked_fill(scores == -torch.inf, 0)
        return ids.cpu().numpy(), scores.float().cpu().numpy()


def _spans(items: np.ndarray, first: np.ndarray, counts: np.ndarray) -> Tensor:
    """Return the ``counts`` [n] items from ``first`` [n] on, int64 [n, S], padded with 0."""
    place = np.arange(int(counts.max(initial=1)))
    index = np.minimum(first[:, None] + place, len(items) - 1)  # [n, S]
    return torch.from_numpy(items[index].astype(np.int64) * (place < counts[:, None]))
