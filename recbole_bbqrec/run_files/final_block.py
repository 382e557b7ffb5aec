"""The final block of a run's log: its results at a glance."""

from __future__ import annotations

from typing import Any

from recbole_bbqrec.metrics.groups import COLD, LATER, SAME_DAY


def final_block(result: dict[str, Any]) -> str:
    """Return metrics, split, time, memory and files of a run as an aligned text block."""
    rows = [("model", f"{result['model']} on {result['dataset']}, seed {result['seed']}")]
    split = "test" if result["test_result"] else "valid"  # a run may leave the test split alone
    metrics = result["test_result"] or result["best_valid_result"]
    rows += [
        (f"{split} {name}", f"{value:.4f}")
        for name, value in metrics.items()
        if not name.startswith("collisions/")  # phase one's; they have a row of their own
    ]
    rows += _by_target(result)
    rows += [("split", f"{result['split_hash']}, {result['split']['protocol']}")]
    if result["test_result"]:
        users = result["users"]
        rows.append(("users", f"{users['tested']:,} of {users['all']:,} tested"))
    if result["mask_history"]:
        rows.append(("ranking", "history masked"))
    tokenizer = result["tokenizer"]
    if tokenizer:
        text = f"{tokenizer['collisions_before']} items before re-assignment"
        rows.append(("collisions", f"{text}, {tokenizer['collisions_after']} after"))
    for name, feature in result["features"].items():
        encoder = feature.get("encoder", "unknown encoder")
        described = f"{encoder}, {feature['dim']} dimensions, {feature['fingerprint']}"
        rows.append((name, described))
    rows += [(f"{name} seconds", f"{value:.1f}") for name, value in result["seconds"].items()]
    rows += [(f"peak {name}", f"{mib:,.0f} MiB") for name, mib in result["peak_memory_mib"].items()]
    rows += [(f"file {name}", path) for name, path in result["files"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _by_target(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each of the main groups of targets, with the metrics of the last cut-off."""
    groups = result["by_target"]
    rows = []
    for name in (SAME_DAY, LATER, COLD):
        if name in groups:
            metrics = groups[name]["metrics"].items()
            last = f"@{max(int(metric.rpartition('@')[2]) for metric, _ in metrics)}"
            shown = [f"{metric} {value:.4f}" for metric, value in metrics if metric.endswith(last)]
            rows.append((f"test {name}", f"{', '.join(shown)} ({groups[name]['targets']:,})"))
    return rows
