"""Report of a split for the log and ``result.json``: protocol, numbers of targets, ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from logging import getLogger
from typing import Any

import numpy as np

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.protocol.settings import LEAVE_ONE_OUT, split_settings
from recbole_bbqrec.data.protocol.ties import WARN_ABOVE, tie_lines
from recbole_bbqrec.protocols import ItemDataset, RunConfig


def split_report(config: RunConfig, dataset: ItemDataset, parts: Sequence[Any]) -> dict[str, Any]:
    """Count what a split holds out, as plain data for ``result.json``.

    Args:
        config: the run's configuration.
        dataset: of :func:`recbole_bbqrec.data.loaders.create_dataset`.
        parts: its parts for training, validation and test.
    """
    settings = split_settings(config)
    loo = config["eval_args"]["split"] == {"LS": "valid_and_test"}
    name = settings.protocol or (LEAVE_ONE_OUT if loo else "eval_args")
    test, item, user = parts[2].inter_feat, dataset.iid_field, dataset.uid_field
    histories = Histories.from_training_data(parts[0])
    trained = histories.trained_items(dataset.item_num).numpy()
    users = np.unique(test[user].numpy())
    report: dict[str, Any] = {
        "protocol": name,
        "targets": {
            kind: len(part.inter_feat) for kind, part in zip(("train", "valid", "test"), parts)
        },
        "test_users": len(users),
        "test_users_not_trained": int((~np.isin(users, histories.users.numpy())).sum()),
        "test_targets_not_trained": int((~trained[test[item].numpy()]).sum()),
        "items_not_trained": int((~trained[1:]).sum()),
        "ties": getattr(dataset, "ties", {}),
    }
    plan = getattr(dataset, "plan", None)
    if plan is not None and plan.cut is not None:
        report.update(
            cut=plan.cut,
            time_target=settings.time_target,
            time_validation=settings.time_validation,
        )
    return report


def log_report(report: Mapping[str, Any]) -> None:
    """Log the split, and warn where the order of a file decides what is next."""
    logger = getLogger()
    counts = report["targets"]
    text = (
        f"Split {report['protocol']}: {counts['train']:,} targets to train, {counts['valid']:,} to "
        f"validate, {counts['test']:,} to test ({report['test_users']:,} users"
    )
    if report["test_users_not_trained"]:
        text += f", {report['test_users_not_trained']:,} of them not in training"
    text += ")"
    if report["test_targets_not_trained"]:
        text += f"; {report['test_targets_not_trained']:,} test targets are items never trained"
    if "cut" in report:
        text += f"; the cut is {date(report['cut'])}"
    for line in [text, *tie_lines(report["ties"])]:
        logger.info(line)
    share = report["ties"].get("tied_last", 0.0)
    if share > WARN_ABOVE and report["protocol"] == LEAVE_ONE_OUT:
        logger.warning(
            f"The order of the file decides which item is next for {100 * share:.1f} % of the "
            "users. Metrics of same-day and later targets stand apart below; "
            "--protocol=next_day tests on an item of a later day."
        )


def date(time: float) -> str:
    """Write a Unix time as its day and number, another number as it is."""
    try:
        return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d} ({time:.0f})"
    except (OverflowError, ValueError, OSError):
        return f"{time:g}"
