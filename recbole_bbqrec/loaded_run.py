"""A saved run in memory: recommendations and semantic IDs as tables of raw tokens."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.metrics.collector import best_items
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.parts.item_codes import CodeRecommender
from recbole_bbqrec.protocols import ItemDataset

_ROWS = 4096  # histories ranked at a time; fewer in a large catalogue, see _SCORES
_SCORES = 1 << 24  # scores held at a time, 64 MiB of float32
_PAIRS = 1 << 16  # (history, item) pairs scored at a time, for models that score pairs only


class LoadedRun(NamedTuple):
    """A saved model with its configuration and data.

    It unpacks in the order of RecBole's ``load_data_and_model``: ``config, model, dataset,
    train_data, valid_data, test_data``. The model is in evaluation mode.
    """

    config: BBQRecConfig
    model: Any
    dataset: ItemDataset
    train_data: Any
    valid_data: Any
    test_data: Any

    def __repr__(self) -> str:
        users, items = self.dataset.user_num - 1, self.dataset.item_num - 1
        name = f"{self.config['model']} on {self.config['dataset']}"
        return f"<LoadedRun: {name}, {users:,} users, {items:,} items>"

    def recommend(
        self,
        users: Sequence[Hashable] | None = None,
        histories: Sequence[Sequence[Hashable]] | None = None,
        k: int = 10,
        exclude_history: bool | None = None,
    ) -> pd.DataFrame:
        """Recommend the next items of users or of histories, as raw tokens.

        Parameters
        ----------
        users
            Tokens of users of the data set. The model reads everything known of a user: training,
            validation and test events, of which the last ``MAX_ITEM_LIST_LENGTH`` count.
        histories
            Lists of item tokens, oldest first, instead of ``users``; the last
            ``MAX_ITEM_LIST_LENGTH`` items of each count. Models that learn a vector for each
            user, such as FPMC, cannot rank for them.
        k
            Number of items for each user. A generative model widens its beam where
            ``num_beams`` is too small for it.
        exclude_history
            True leaves out the items of the history that the model reads; by default the run's
            option ``mask_history`` decides.

        Returns
        -------
        pandas.DataFrame
            k rows for each user, in the order given, with the columns ``user`` (the token, or the
            position 0, 1, ... in ``histories``), ``rank`` (1 to k), ``item`` and ``score``, and
            ``title`` where the data set has titles. The scores of generative models are
            log-probabilities, plus the bonus of neighbours where the run has one.

        Raises
        ------
        UserError
            A user or item is unknown, a history is empty, or there are fewer than k items.

        Examples
        --------
        >>> from recbole_bbqrec import load_run
        >>> run = load_run("saved/my-run")
        >>> table = run.recommend(users=["u0001", "u0002"], k=2)
        >>> table[["user", "rank"]]
            user  rank
        0  u0001     1
        1  u0001     2
        2  u0002     1
        3  u0002     2
        >>> new = run.recommend(histories=[["i0398", "i0395"]], k=3, exclude_history=True)
        >>> len(new), bool(new["item"].isin(["i0398", "i0395"]).any())
        (3, False)
        """
        exclude = self.config["mask_history"] if exclude_history is None else exclude_history
        names, rows = self._rows(users, histories)
        self._check_k(k, names, rows, exclude)
        step = max(1, min(_ROWS, _SCORES // self.model.n_items))
        parts = [
            self._best(rows[first : first + step], k, exclude)
            for first in range(0, len(names), step)
        ]
        ids = np.concatenate([part[0] for part in parts]) if parts else np.empty((0, k), int)
        scores = np.concatenate([part[1] for part in parts]) if parts else np.empty((0, k))
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        table = pd.DataFrame(
            {
                "user": np.repeat(np.array(names), k),
                "rank": np.tile(np.arange(1, k + 1), len(names)),
                "item": tokens[ids.ravel()],
                "score": scores.ravel(),
            }
        )
        place, name = self.config["data_path"], self.config["dataset"]
        titles = read_titles(Path(place) / f"{name}.titles.tsv")
        return table.assign(title=table["item"].map(titles).fillna("")) if titles else table

    def semantic_ids(self) -> pd.DataFrame:
        """Return the codes of every item.

        Returns
        -------
        pandas.DataFrame
            One row for each item in the order of the data set: ``item``, its raw token, and a
            column of codes for each level and signal, such as ``level1/text``. The digits of
            VQRec's and RPG's codes are ``digit1/text`` and so on.

        Raises
        ------
        UserError
            The model has no codes.

        Examples
        --------
        >>> from recbole_bbqrec import load_run
        >>> table = load_run("saved/my-run").semantic_ids()
        >>> list(table)[:4]
        ['item', 'level1/id', 'level1/text', 'level1/image']
        """
        model = self.model
        if isinstance(model, GenerativeRecommender):
            codes, place, signals = model.codes, "level", model.signals_of(self.config)
        elif isinstance(model, CodeRecommender):
            codes, place = model.item_codes.codes.unsqueeze(2), "digit"
            signals = (model.item_codes.features.name,)
        else:
            raise UserError(
                f"{self.config['model']} has no semantic IDs; expected a generative model, VQRec "
                "or RPG. Load a run of one of them."
            )
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        table: dict[str, Any] = {"item": tokens[1:]}
        for level in range(codes.shape[1]):
            for index, signal in enumerate(signals):
                table[f"{place}{level + 1}/{signal}"] = codes[1:, level, index].cpu().numpy()
        return pd.DataFrame(table)

    # helpers --------------------------------------------------------------------------------

    def _rows(self, users: Any, histories: Any) -> tuple[list[Hashable], Interaction]:
        """Return the names of the column ``user`` and what the model reads of each, n rows."""
        if (users is None) == (histories is None):
            given = "neither of them" if users is None else "both"
            raise UserError(f"recommend() takes `users` or `histories`; it was given {given}.")
        model = self.model
        if users is None:
            histories = _listed("histories", histories)
            items, lengths = self._given_histories(histories)
            rows = Interaction({model.ITEM_SEQ: items, model.ITEM_SEQ_LEN: lengths})
            return list(range(len(histories))), rows
        tokens = [str(user) for user in _listed("users", users)]
        ids = self._ids(self.dataset.uid_field, tokens)
        items, lengths = self._known_histories(tokens, ids)
        fields = {model.USER_ID: torch.from_numpy(ids)}
        rows = Interaction({**fields, model.ITEM_SEQ: items, model.ITEM_SEQ_LEN: lengths})
        return list(tokens), rows

    def _ids(self, field: str, tokens: Sequence[str]) -> np.ndarray:
        """Return internal ids int64 [n] of the tokens of a field; UserError for an unknown one."""
        known = self.dataset.field2id_token[field]
        id_of = {str(token): number for number, token in enumerate(known) if number > 0}
        unknown = [token for token in tokens if token not in id_of]
        if unknown:
            kind = "user" if field == self.dataset.uid_field else "item"
            raise UserError(
                f"Unknown {kind} {unknown[0]!r}; data set {self.config['dataset']!r} has "
                f"{len(id_of)} {kind}s after filtering.{did_you_mean(unknown[0], id_of)} Give raw "
                f"tokens of its column `{field}`."
            )
        return np.array([id_of[token] for token in tokens], dtype=np.int64)

    def _known_histories(self, names: Sequence[str], users: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the latest items int64 [n, T] of users, right padded, and their numbers [n].

        All events of the file count, also those that a protocol leaves out. Of files that are
        split already RecBole has rows alone: what came before an event, and the event. A user's
        last row is in the test part, else in an earlier one.
        """
        width = self.config["MAX_ITEM_LIST_LENGTH"]
        events = self.dataset.file_events
        if events is not None:
            end = np.searchsorted(events.users, users, side="right")  # [n]
            length = np.minimum(end - np.searchsorted(events.users, users), width)
            place = np.arange(width)
            index = np.minimum((end - length)[:, None] + place, len(events) - 1)  # [n, T]
            latest = events.items[index] * (place < length[:, None])
            return torch.from_numpy(latest), torch.from_numpy(length)
        items = torch.zeros(len(users), width, dtype=torch.int64)
        lengths = torch.zeros(len(users), dtype=torch.int64)
        for loader in (self.train_data, self.valid_data, self.test_data):
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

    def _given_histories(self, histories: Sequence[Sequence[Hashable]]) -> tuple[Tensor, Tensor]:
        """Return the latest items int64 [n, T] of histories, right padded, and their numbers."""
        width = self.config["MAX_ITEM_LIST_LENGTH"]
        latest = []
        for number, history in enumerate(histories):
            tokens = [str(item) for item in _listed(f"histories[{number}]", history)]
            if not tokens:
                raise UserError(
                    f"histories[{number}] is empty; expected one item or more. Leave it out."
                )
            latest.append(tokens[-width:])
        lengths = torch.tensor([len(tokens) for tokens in latest], dtype=torch.int64)
        ids = self._ids(self.dataset.iid_field, [token for tokens in latest for token in tokens])
        items = torch.zeros(len(latest), width, dtype=torch.int64)
        items[torch.arange(width) < lengths.unsqueeze(1)] = torch.from_numpy(ids)
        return items, lengths

    def _check_k(self, k: int, names: list[Hashable], rows: Interaction, exclude: bool) -> None:
        """Raise UserError unless every row has k items to rank."""
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
            raise UserError(f"k is {k!r}; expected a whole number of at least 1.")
        items = rows[self.model.ITEM_SEQ].sort(1).values
        new = (items > 0) & (items != F.pad(items, (1, 0))[:, :-1])
        excluded = new.sum(1) * int(exclude)  # [n] different items of each history
        most = int(excluded.max()) if len(excluded) else 0
        if k > self.model.n_items - 1 - most:
            name = names[int(excluded.argmax())] if most else ""
            why = f", {most} of which are excluded as the history of {name!r}" if most else ""
            raise UserError(
                f"k is {k}; data set {self.config['dataset']!r} has {self.model.n_items - 1} "
                f"items{why}. Ask for fewer."
            )

    @torch.no_grad()
    def _best(self, rows: Interaction, k: int, exclude: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the best items int64 [n, k] of some rows, best first, and their scores."""
        model, rows = self.model, rows.to(self.config["device"])
        items = rows[model.ITEM_SEQ]
        try:
            if isinstance(model, GenerativeRecommender):
                model.catalogue  # noqa: B018 - built once here, not in every copy
                searcher = copy.copy(model)  # shares all tensors
                searcher.mask_history = exclude
                searcher.num_beams = max(model.num_beams, k + exclude * items.shape[1])
                ids, scores = searcher.recommend(items, rows[model.ITEM_SEQ_LEN], k)
            else:
                full = all_scores(model, rows)
                if exclude:
                    full.scatter_(1, items, -torch.inf)
                ids = best_items(full, k)
                scores = full.gather(1, ids)
        except KeyError as error:
            if error.args[0] not in self.train_data._dataset.inter_feat:
                raise
            raise UserError(
                f"{self.config['model']} reads the field {error} of each row, which recommend() "
                "does not have here. Give `users` instead of `histories`, or use another model."
            ) from error
        if bool(scores.isnan().any()):
            raise UserError(
                f"{self.config['model']} gives scores that are no numbers: its training has "
                "diverged. Train again with a lower --learning_rate."
            )
        return ids.cpu().numpy(), scores.float().cpu().numpy()


def all_scores(model: Any, interaction: Interaction) -> Tensor:
    """Return scores [B, n_items] of a model that scores items, -inf for [PAD].

    RecBole's models without ``full_sort_predict`` score pair by pair.
    """
    try:
        scores = model.full_sort_predict(interaction)
    except NotImplementedError:
        scores = _scores_by_pairs(model, interaction)
    scores = scores.view(-1, model.n_items)
    scores[:, 0] = -torch.inf
    return scores


def _scores_by_pairs(model: Any, interaction: Interaction) -> Tensor:
    items = torch.arange(model.n_items, device=interaction[model.ITEM_SEQ].device)
    scores = []
    step = max(1, _PAIRS // model.n_items)
    for first in range(0, len(interaction), step):
        rows = interaction[first : first + step]
        pairs = rows.repeat_interleave(model.n_items)
        pairs.update(Interaction({model.ITEM_ID: items.repeat(len(rows))}))
        scores.append(model.predict(pairs))
    return torch.cat(scores)


def _listed(name: str, values: Any) -> Sequence[Hashable]:
    """Return ``values`` as a list; UserError where a single token stands in its place."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise UserError(f"{name} is {values!r}; expected a list of raw tokens: [{values!r}].")
    if isinstance(values, (Mapping, pd.DataFrame)):
        raise UserError(
            f"{name} is a {type(values).__name__}; expected a list, an array or a column."
        )
    return list(values)
