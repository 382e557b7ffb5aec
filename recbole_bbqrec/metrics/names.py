"""The names of the metrics that RecBole reports, such as ``NDCG@10``; check of `valid_metric`."""

from __future__ import annotations

from collections.abc import Sequence

from recbole.evaluator.register import metric_information

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

_NEEDS_OF_CUTOFFS = {"rec.items", "rec.topk"}  # inputs of RecBole's metrics with a cut-off


def has_cutoff(metric: str) -> bool:
    """Return True if RecBole reports this metric at each of ``topk``; False for AUC, say."""
    return not _NEEDS_OF_CUTOFFS.isdisjoint(metric_information[metric.lower()])


def metric_names(metrics: Sequence[str], topk: Sequence[int]) -> list[str]:
    """Return the names of the values that these options measure, in the options' spelling."""
    names: list[str] = []
    for metric in metrics:
        names += [f"{metric}@{k}" for k in topk] if has_cutoff(metric) else [metric]
    return names


def check_valid_metric(config: RunConfig) -> None:
    """Refuse a ``valid_metric`` that is not measured; RecBole fails only after the first epoch.

    Raises:
        UserError: it is not one of ``metrics``, at one of ``topk`` if it has a cut-off.
    """
    valid_metric, names = config["valid_metric"], metric_names(config["metrics"], config["topk"])
    if valid_metric.lower() in (name.lower() for name in names):
        return
    metric = valid_metric.partition("@")[0].lower()
    near = [name for name in names if name.partition("@")[0].lower() == metric] or names
    raise UserError(
        f"Option `valid_metric` is {valid_metric}, which is not measured: `metrics` is "
        f"{config['metrics']} and `topk` is {config['topk']}. Expected one of "
        f"{', '.join(names)}; add --valid_metric={near[-1]}."
    )
