"""Seconds and peak memory of each stage of a run."""

from __future__ import annotations

from typing import Any

from recbole_bbqrec.run_files.finished_run import FinishedRun

_STAGES = ("prepare", "tokenize", "generate", "train", "test")


def stages(run: FinishedRun) -> list[dict[str, Any]]:
    """One entry a stage: ``seconds``, and ``peak_memory_mib`` reached by its end, where known.

    ``train`` is the whole of training: of a generative model both phases. A process's peak never
    falls from one stage to the next; a resumed run has the peaks of more than one process.
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
