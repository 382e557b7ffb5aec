"""The names under which RecBole reports metrics, such as ``NDCG@10``, and the one that judges."""

from __future__ import annotations

from collections.abc import Sequence

from recbole.evaluator.register import metric_information

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

_OF_THE_TOP = {"rec.items", "rec.topk"}  # what RecBole's metrics with a cut-off are made from


def has_cutoff(metric: str) -> bool:
    """Whether RecBole reports this metric of its own at each of ``topk``; AUC it does not."""
    return not _OF_THE_TOP.isdisjoint(metric_information[metric.lower()])


def metric_names(metrics: Sequence[str], topk: Sequence[int]) -> list[str]:
    """What a run with these options measures, in the spelling of the options."""
    names: list[str] = []
    for metric in metrics:
        names += [f"{metric}@{k}" for k in topk] if has_cutoff(metric) else [metric]
    return names


def check_valid_metric(config: RunConfig) -> None:
    """Refuse a ``valid_metric`` that validation does not measure, in time.

    RecBole looks for it after the first epoch, among the results.

    Raises:
        UserError: it is not one of ``metrics`` at one of ``topk``, with a cut-off or without.
    """
    wanted, names = config["valid_metric"], metric_names(config["metrics"], config["topk"])
    if wanted.lower() in (name.lower() for name in names):
        return
    metric = wanted.partition("@")[0].lower()
    near = [name for name in names if name.partition("@")[0].lower() == metric] or names
    raise UserError(
        f"Option `valid_metric` is {wanted}, which is not measured: `metrics` is "
        f"{config['metrics']} and `topk` is {config['topk']}. Expected one of "
        f"{', '.join(names)}; add --valid_metric={near[-1]}."
    )
