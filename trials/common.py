"""Shared parts of the trials: the tiny run that they damage or kill, and their arguments."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from tests.support.runs import TINY as OF_THE_TESTS  # noqa: E402

#: A BBQRec run on Mini that takes seconds: every part is there, all are small.
TINY: dict[str, Any] = {**OF_THE_TESTS, "num_threads": 1, "epochs": 3}


def arguments(
    description: str | None, n: int, small: int, more: Sequence[str] = ()
) -> argparse.Namespace:
    """Parse the arguments of every trial: how many cases, their seed, and where to work."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    for name in more:
        parser.add_argument(f"--{name}", default=None)
    parser.add_argument("--n", type=int, default=None, help=f"number of cases (default: {n})")
    parser.add_argument("--small", action="store_true", help=f"{small} cases, under a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="keep the working folder here")
    options = parser.parse_args()
    options.n = options.n or (small if options.small else n)
    return options


def environment() -> dict[str, str]:
    """Return an environment in which a process imports this checkout and computes in one thread."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "recbole_bbqrec", *words]


def write_options(folder: Path, **changed: Any) -> Path:
    """Write the options of the tiny run as a config file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changed}), encoding="utf-8")
    return path


def finish(words: Sequence[str], folder: Path) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )


def digest(value: Any) -> str:
    """Hash nested plain data, tensors and arrays by their content."""
    found = hashlib.sha256()
    _add(found, value)
    return found.hexdigest()[:16]


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            found.update(repr(key).encode())
            _add(found, value[key])
    elif isinstance(value, (list, tuple)):
        found.update(f"[{len(value)}".encode())
        for part in value:
            _add(found, part)
    elif isinstance(value, torch.Tensor):
        found.update(f"{value.dtype}{list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
    else:
        found.update(repr(value).encode())


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
