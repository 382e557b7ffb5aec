"""The test metrics of every single user, beside the means that RecBole reports.

RecBole's evaluator averages over users at once; tests of significance need the values behind the
mean. They are RecBole's own, taken where its metrics hand them over to be averaged, so that their
mean is the reported figure for its models and for ours.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import TopkMetric

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig

_FIXED = ("users", "rank", "max_rank", "split_hash")


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
    """

    users: np.ndarray
    rank: np.ndarray
    max_rank: int
    metrics: dict[str, np.ndarray]
    split_hash: str

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` without pickled objects, atomically."""
        arrays: dict[str, Any] = {
            "users": self.users,
            "rank": self.rank,
            "max_rank": np.int64(self.max_rank),
            "split_hash": np.str_(self.split_hash),
            **self.metrics,
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
            with np.load(path, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            users, rank = values["users"], values["rank"]
            metrics = {name: value for name, value in values.items() if name not in _FIXED}
            if any(value.shape != users.shape for value in (rank, *metrics.values())):
                raise ValueError("the arrays have different lengths")
            max_rank, split_hash = int(values["max_rank"]), str(values["split_hash"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"The file of per-user metrics {path} cannot be read ({error}). Remove its run's "
                "directory and run it again."
            ) from error
        return cls(users, rank, max_rank, metrics, split_hash)


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
    """RecBole's evaluator that also keeps what its top-k metrics average over."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.rank: np.ndarray | None = None  # int32 [U]
        self.values: dict[str, np.ndarray] = {}
        self._decimals = config["metric_decimal_place"]
        for name, metric in self.metric_class.items():
            if isinstance(metric, TopkMetric):
                self.metric_class[name] = self._recording(metric)

    def _recording(self, metric: TopkMetric) -> TopkMetric:
        average = metric.topk_result

        def keep_and_average(name: str, value: np.ndarray) -> dict[str, float]:
            for k in metric.topk:  # value: [U, max(topk)]
                self.values[f"{name}@{k}"] = value[:, k - 1].astype(np.float32)
            return average(name, value)

        metric.topk_result = keep_and_average
        return metric

    def evaluate(self, dataobject: Any) -> Any:
        self.rank, self.values = None, {}
        if "rec.topk" in dataobject:
            hits = dataobject.get("rec.topk")[:, :-1].bool()  # [U, max(topk)]; last: positives
            first = hits.int().argmax(dim=1) + 1
            self.rank = (first * hits.any(dim=1)).numpy().astype(np.int32)
        return super().evaluate(dataobject)

    def per_user(self, dataset: ItemDataset, split_hash: str) -> PerUser | None:
        """What was recorded of the split ``dataset``.

        None where the protocol has no row a user (value metrics, several processes, or a split
        with several test items a user).
        """
        tokens = dataset.field2id_token[dataset.uid_field]
        users = tokens[dataset.inter_feat[dataset.uid_field].numpy()].astype(np.str_)
        if self.rank is None or not self.values or len(self.rank) != len(users):
            return None
        if len(np.unique(users)) != len(users):
            return None
        longest = max(int(name.rpartition("@")[2]) for name in self.values)
        return PerUser(users, self.rank, longest, self.values, split_hash)
