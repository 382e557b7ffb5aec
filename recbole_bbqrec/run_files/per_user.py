"""The test metrics of every single user, beside the means that RecBole reports.

RecBole's evaluator averages over users at once; tests of significance need the values behind the
mean. They follow from the rank of the true item, which is read from what RecBole's metrics read,
so that their mean is the reported figure for RecBole's models and for ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator import Evaluator

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.groups import by_group
from recbole_bbqrec.metrics.per_user_values import first_match, user_values
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.reading import read_arrays

_FIXED = ("users", "rank", "max_rank", "split_hash")
_TARGET = "target/"  # prefix of the arrays that describe the targets


@dataclass(frozen=True)
class PerUser:
    """Metrics of one evaluated split, one row per user.

    Attributes:
        users: unicode [U], raw user tokens in the order of the split.
        rank: int32 [U], 1-based position of the true item; 0 if it is not among the top
            ``max_rank``.
        max_rank: length of the rankings, the largest of ``topk``.
        metrics: name such as ``ndcg@10`` -> float32 [U].
        split_hash: identifies the split of the data.
        targets: what is known of each target, such as ``gap_days``, [U] each; empty in files of
            earlier versions.
    """

    users: np.ndarray
    rank: np.ndarray
    max_rank: int
    metrics: dict[str, np.ndarray]
    split_hash: str
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` without pickled objects, atomically."""
        arrays: dict[str, Any] = {
            "users": self.users,
            "rank": self.rank,
            "max_rank": np.int64(self.max_rank),
            "split_hash": np.str_(self.split_hash),
            **self.metrics,
            **{f"{_TARGET}{name}": value for name, value in self.targets.items()},
        }
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> PerUser:
        """Read a file that :meth:`save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        try:
            values = read_arrays(path, "metrics of users", "Run again, in a new directory.")
            users, rank = values["users"], values["rank"]
            named = {name: value for name, value in values.items() if name not in _FIXED}
            metrics = {k: value for k, value in named.items() if not k.startswith(_TARGET)}
            targets = {k[len(_TARGET) :]: v for k, v in named.items() if k.startswith(_TARGET)}
            if any(value.shape != users.shape for value in (rank, *named.values())):
                raise ValueError("the arrays have different lengths")
            max_rank, split_hash = int(values["max_rank"]), str(values["split_hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The file of per-user metrics {path} cannot be read ({error}). Remove its run's "
                "directory and run it again."
            ) from error
        return cls(users, rank, max_rank, metrics, split_hash, targets)


@contextmanager
def recorded(trainer: Any) -> Iterator[_RecordingEvaluator]:
    """Yield an object that records the per-user values of ``trainer.evaluate`` in the block.

    Validation, every epoch, runs outside such a block: it needs means only.
    """
    plain = trainer.evaluator
    trainer.evaluator = recorder = _RecordingEvaluator(trainer.config)
    try:
        yield recorder
    finally:
        trainer.evaluator = plain


class _RecordingEvaluator(Evaluator):
    """RecBole's evaluator that also keeps the rank of each row's true item."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.rank: np.ndarray | None = None  # int32 [U]
        self._metrics, self._topk = config["metrics"], config["topk"]

    def evaluate(self, dataobject: Any) -> Any:
        self.rank = None
        if "rec.topk" in dataobject:
            hits = dataobject.get("rec.topk")  # [U, max(topk) + 1]; last: number of true items
            if bool((hits[:, -1] == 1).all()):
                self.rank = first_match(hits[:, :-1].bool()).astype(np.int32)
        return super().evaluate(dataobject)

    def by_target(self, targets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the metrics by groups of targets, of :func:`by_group`; empty without ranks."""
        if self.rank is None or any(len(value) != len(self.rank) for value in targets.values()):
            return {}
        return by_group(user_values(self.rank, self._metrics, self._topk), targets)

    def per_user(
        self, dataset: ItemDataset, split_hash: str, targets: Mapping[str, np.ndarray]
    ) -> PerUser | None:
        """Return the values recorded on the split ``dataset``, and what is known of its targets.

        None if the evaluation has not one row per user: value metrics, several processes, or
        several test items of a user.
        """
        tokens = dataset.field2id_token[dataset.uid_field]
        users = tokens[dataset.inter_feat[dataset.uid_field].numpy()].astype(np.str_)
        if self.rank is None or len(self.rank) != len(users) or len(np.unique(users)) != len(users):
            return None
        values = user_values(self.rank, self._metrics, self._topk)
        if not values:
            return None
        values = {name: value.astype(np.float32) for name, value in values.items()}
        return PerUser(users, self.rank, max(self._topk), values, split_hash, dict(targets))
