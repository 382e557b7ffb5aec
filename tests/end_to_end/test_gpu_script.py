"""The script for a machine with a GPU, on the CPU: so that it runs when a GPU is at hand."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.runs import ROOT


def test_the_gpu_script_runs_to_its_end(tmp_path) -> None:
    """All but the comparison of every model, which takes minutes."""
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--small"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*script, "--skip", "models"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:1] == "|"]
    phases = [
        f"phase {phase}, epoch {epoch}" for phase, n in ((1, 3), (2, 2)) for epoch in range(n)
    ]
    assert [*phases, "all 400 test users, beam 50"] == rows[2:8]
    assert "eager" in rows and rows.count("operator") == 1
    assert "GFLOP a step" in done.stdout and "0 models failed" in done.stdout
