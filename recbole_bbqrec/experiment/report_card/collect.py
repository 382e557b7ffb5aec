"""Analyses of a finished run, as plain values."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.protocol.targets import describe_targets
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.experiment.report_card import breakdowns
from recbole_bbqrec.experiment.report_card.beam import beam_against_exact
from recbole_bbqrec.experiment.report_card.codes import code_use, codes_of, collisions
from recbole_bbqrec.experiment.report_card.curves import learning_curves
from recbole_bbqrec.experiment.report_card.examples import example_users
from recbole_bbqrec.experiment.report_card.item_map import item_map
from recbole_bbqrec.experiment.report_card.lenient import strict_and_lenient
from recbole_bbqrec.experiment.report_card.ranking import Ranking, rank_test_users
from recbole_bbqrec.experiment.report_card.similarity import similarity_profile
from recbole_bbqrec.metrics.per_user_values import UserValues, means, ranks, summary, user_values
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.runtime import prepare_process

FORMAT = 1

#: User-item pairs scored exactly if no number of users is given.
EXACT_SCORES = 1_000_000
_SIMILARITY_USERS = 2000  # histories whose item pairs are counted
_STAGES = ("prepare", "tokenize", "generate", "train", "test")

#: Sections that only some models have -> the reason why they are missing.
_REASONS = {
    "curves": "The run has no epochs.jsonl: the version that made it did not write one.",
    "codes": "The model has no semantic IDs.",
    "collisions": "The model has no semantic IDs.",
    "map": "The model has no semantic IDs.",
    "lenient": "The model has no semantic IDs, so a hit is a hit on the item itself.",
    "similarity": "The model has no similarity module.",
    "beam": "The model scores every item; there is no beam to check.",
}


def collect(
    run: FinishedRun,
    *,
    sample: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    echo: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Load the run's model, rank the whole test split and analyse the lists.

    Args:
        run: the run's files.
        sample: test users scored exactly; by default as many as :data:`EXACT_SCORES` allows.
        overrides: options to change, such as ``data_path``.
        echo: called with each line of progress.

    Returns:
        The content of ``report.json``. Sections that the model does not have are None, with the
        reason in ``left_out``.

    Raises:
        UserError: a file of the run or of its data is missing, damaged or not the run's.
    """
    echo("loading the model and its data")
    config, model, dataset, train_data, _, test_data = load_data_and_model(
        run.files.model, overrides
    )
    prepare_process(
        allocator=config["tune_allocator"],
        num_threads=config["num_threads"],
        reproducible=config["reproducibility"],
        device=config["device"],
    )
    model.eval()
    echo(f"ranking {len(test_data._dataset):,} test users")
    ranking = rank_test_users(config, model, test_data)
    names, topk = config["metrics"], config["topk"]
    values = user_values(ranks(ranking.items, ranking.targets), names, topk)
    targets = describe_targets(test_data._dataset, train_data._dataset, dataset.events)
    counts = breakdowns.training_counts(train_data, model.n_items)
    longest = config["MAX_ITEM_LIST_LENGTH"]
    codes = codes_of(config, model, dataset, run)
    report: dict[str, Any] = {
        "format": FORMAT,
        "run": _described(run, config, model, ranking, counts),
        "test": _test(run, values, config["metric_decimal_place"], len(ranking.targets)),
        "curves": learning_curves(run.epochs) or None,
        "codes": None if codes is None else code_use(codes),
        "collisions": None if codes is None else collisions(codes),
        "map": item_map(model, codes, config["seed"]),
        "lenient": None if codes is None else strict_and_lenient(ranking, codes, names, topk),
        "similarity": similarity_profile(model, _sample(ranking, _SIMILARITY_USERS, config)),
        "beam": None,
        "targets": breakdowns.by_target(values, targets),
        "history_length": breakdowns.by_history_length(ranking, values, longest),
        "popularity": breakdowns.by_popularity(ranking, values, counts),
        "cold": breakdowns.cold_items(ranking, counts),
        "stages": _stages(run),
    }
    if spec(config["model"]).two_phase:
        users = sample or max(10, EXACT_SCORES // model.n_items)
        chosen = _sample(ranking, users, config)
        echo(f"scoring all {model.n_items - 1:,} items for {len(chosen.targets):,} of them")
        report["beam"] = beam_against_exact(model, chosen, names, topk)
    titles = read_titles(Path(config["data_path"]) / f"{config['dataset']}.titles.tsv")
    report["examples"] = example_users(ranking, dataset, titles, config["seed"])
    report["left_out"] = _left_out(report)
    return report


def _sample(ranking: Ranking, users: int, config: BBQRecConfig) -> Ranking:
    """Draw ``users`` rows by the run's seed, or take all; the order of the split is kept."""
    drawn = np.random.default_rng(config["seed"]).permutation(len(ranking.targets))[:users]
    return ranking.take(torch.from_numpy(np.sort(drawn)))


def _described(
    run: FinishedRun, config: BBQRecConfig, model: Any, ranking: Ranking, counts: np.ndarray
) -> dict[str, Any]:
    result = run.result
    kept = (
        "model", "dataset", "seed", "version", "split_hash", "split", "mask_history", "features",
    )  # fmt: skip
    return {
        **{key: result[key] for key in kept if key in result},
        "name": run.files.directory.name,
        "k": max(config["topk"]),
        "longest_history": config["MAX_ITEM_LIST_LENGTH"],
        "precision": config["precision"],
        "device": str(config["device"]),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "best_epoch": load_checkpoint(run.files.model).get("epoch"),
        "items": len(counts) - 1,
        "training_events": int(counts.sum()),
        "test_users": len(ranking.users.unique()),
        "test_targets": len(ranking.targets),
        "torch": torch.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "configuration": config.to_text(),
    }


def _test(run: FinishedRun, values: UserValues, decimals: int, users: int) -> dict[str, Any]:
    """Compare the run's own metrics with those of the loaded model, which should be the same.

    ``half_width_95`` is for the mean over users: how far another sample of as many users from the
    same population would move the metric. It does not cover other seeds.
    """
    again = means(values)
    reported = run.result["test_result"]
    tolerance = 0.5 * 10.0**-decimals + 1e-9  # the run rounds its metrics
    return {
        "users": users,
        "reported": reported,
        "recomputed": again,
        "half_width_95": summary(values, np.ones(users, bool))["half_width_95"],
        "agree": all(abs(again[n] - v) <= tolerance for n, v in reported.items() if n in again),
    }


def _stages(run: FinishedRun) -> list[dict[str, Any]]:
    """Return one entry a stage: ``seconds``, and ``peak_memory_mib`` by its end where known.

    ``train`` is all of training, both phases of a generative model. A process's peak never falls
    from one stage to the next; a resumed run has the peaks of several processes.
    """
    seconds = run.result["seconds"]
    peaks = dict(run.result.get("peak_memory_mib_by_stage", {}))
    peaks.setdefault("test", run.result["peak_memory_mib"])
    for line in run.epochs:  # the last line of a phase has its peak
        if line["phase"] != "train" and "peak_memory_mib" in line:
            peaks[line["phase"]] = {k: round(v, 1) for k, v in line["peak_memory_mib"].items()}
    return [
        {"stage": stage, "seconds": seconds[stage], "peak_memory_mib": peaks.get(stage, {})}
        for stage in _STAGES
        if stage in seconds
    ]


def _left_out(report: Mapping[str, Any]) -> dict[str, str]:
    reasons = {key: text for key, text in _REASONS.items() if report[key] is None}
    if "map" in reasons and report["codes"] is not None:
        reasons["map"] = "The model keeps no vectors of its items, by which a map would place them."
    if "lenient" in reasons and report["codes"] is not None:
        reasons["lenient"] = (
            "The codes before re-assignment are not stored: the semantic IDs were made by a "
            "version that did not keep them, or their file is gone."
        )
    return reasons
