"""A saved run in memory: recommendations and semantic IDs as tables of raw tokens."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError, listed
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.parts.item_codes import CodeRecommender
from recbole_bbqrec.protocols import ItemDataset


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
        allow: Sequence[Hashable] | None = None,
        deny: Sequence[Hashable] | None = None,
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
        allow, deny
            Tokens of the items that may be recommended, and of those that may not. The search is
            restricted to them, so that k items come back where k are allowed.

        Returns
        -------
        pandas.DataFrame
            k rows for each user (fewer where fewer items are allowed), in the order given, with
            the columns ``user`` (the token, or the position 0, 1, ... in ``histories``), ``rank``
            (1 to k), ``item`` and ``score``, and ``title`` where the data set has titles. The
            scores of generative models are log-probabilities, plus the bonus of neighbours where
            the run has one.

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
        recommender = self.recommender()
        names, rows = self._rows(recommender, users, histories)
        self._check_k(k, names, rows, exclude)
        allowed = allowed_items(recommender, allow, deny)
        excluded = rows[self.model.ITEM_SEQ] if exclude else None
        beams = k + exclude * recommender.width  # as wide as before anything is left out
        ids, scores = recommender.best(rows, k, allowed, excluded, beams)
        found = ids > 0  # [n, k]
        table = pd.DataFrame(
            {
                "user": np.repeat(np.array(names), found.sum(1)),
                "rank": np.nonzero(found)[1] + 1,
                "item": recommender.item_tokens[ids[found]],
                "score": scores[found],
            }
        )
        titles = recommender.titles
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

    def recommender(self) -> Recommender:
        """Return what ranks for :meth:`recommend`, with its tables at hand for many calls."""
        loaders = self.train_data, self.valid_data, self.test_data
        return Recommender(self.config, self.model, self.dataset, loaders)

    # helpers --------------------------------------------------------------------------------

    def _rows(
        self, recommender: Recommender, users: Any, histories: Any
    ) -> tuple[list[Hashable], Interaction]:
        """Return the names of the column ``user`` and what the model reads of each, n rows."""
        if (users is None) == (histories is None):
            given = "neither of them" if users is None else "both"
            raise UserError(f"recommend() takes `users` or `histories`; it was given {given}.")
        if users is not None:
            names = [str(user) for user in listed("users", users)]
            return list(names), recommender.rows_of_users(names)
        tokens = []
        for number, history in enumerate(listed("histories", histories)):
            tokens.append([str(item) for item in listed(f"histories[{number}]", history)])
            if not tokens[-1]:
                raise UserError(
                    f"histories[{number}] is empty; expected one item or more. Leave it out."
                )
        return list(range(len(tokens))), recommender.rows_of_histories(tokens)

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


def allowed_items(
    recommender: Recommender, allow: Sequence[Hashable] | None, deny: Sequence[Hashable] | None
) -> Tensor | None:
    """Return True for items that may be recommended, bool [n_items]; None where all may.

    Raises:
        UserError: an item is unknown, or a single token stands in the place of a list.
    """
    if allow is None and deny is None:
        return None
    allowed = recommender.every_item()
    if allow is not None:
        allowed[:] = False
        allowed[recommender.ids("item", [str(item) for item in listed("allow", allow)])] = True
    if deny is not None:
        allowed[recommender.ids("item", [str(item) for item in listed("deny", deny)])] = False
    return allowed
