"""Inventory of this machine: versions, devices, threads, data sets, extras, what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from recbole_bbqrec.errors import pip_install
from recbole_bbqrec.version import __version__

#: Distributions whose versions matter when a figure is to be repeated.
_PACKAGES = ("torch", "recbole", "numpy", "scipy", "pandas", "scikit-learn", "duckdb")
_GIB = 1 << 30
_LITTLE_SPACE = 2  # GiB of a disk; checkpoints of one comparison may fill it


class Extra(NamedTuple):
    """An optional part of the package: a module of each library it needs, and its purpose."""

    modules: tuple[str, ...]
    purpose: str


#: Extras of setup.cfg that users install.
EXTRAS = {
    "text": Extra(("sentence_transformers",), "sentence encoders for item texts"),
    "images": Extra(("transformers", "PIL"), "encoders of product photos"),
    "plots": Extra(("matplotlib", "jinja2"), "report card, pictures and charts"),
    "tune": Extra(("optuna",), "random and Bayesian search of options"),
    "ray": Extra(("ray",), "runs over a Ray cluster"),
    "ann": Extra(("faiss",), "approximate neighbours in large catalogues"),
    "serve": Extra(("fastapi", "uvicorn", "prometheus_client"), "a service over HTTP"),
    "onnx": Extra(("onnx", "onnxscript"), "exported models as ONNX files"),
    "mlflow": Extra(("mlflow",), "curves of both phases on MLflow"),
    "completion": Extra(("shtab",), "completion of commands in the shell"),
}


class Row(NamedTuple):
    """One finding; ``remedy`` says what to do, if something is missing."""

    name: str
    value: str
    remedy: str = ""


def examine(data_path: Path) -> dict[str, list[Row]]:
    """Return the findings by section.

    Args:
        data_path: folder that holds the data sets.
    """
    return {
        "versions": _versions(),
        "devices": [*_cpu(), *_gpus()],
        "data sets": _data_sets(data_path),
        "extras": _extras(),
        "disk": [_disk(Path.cwd())],
    }


def _versions() -> list[Row]:
    rows = [
        Row("recbole_bbqrec", __version__),
        Row("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
    ]
    for name in _PACKAGES:
        try:
            rows.append(Row(name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append(Row(name, "not installed", f"pip install {name}"))
    return rows


def _cpu() -> list[Row]:
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    memory = psutil.virtual_memory()
    threads = torch.get_num_threads()
    rows = [
        Row("CPU", f"{cores or os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"),
        Row("threads", f"{threads} of torch (option num_threads)"),
        Row("memory", f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} GiB free"),
    ]
    if cores and threads > cores:
        rows[1] = rows[1]._replace(
            remedy=f"--num_threads={cores}: more threads than cores are slow"
        )
    rows.append(Row("bf16", _bf16_of_cpu()))
    return rows


def _bf16_of_cpu() -> str:
    """Say whether --precision=bfloat16 is likely to be faster than float32 on this CPU."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown; try --precision=bfloat16"
    fast = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"fast ({', '.join(fast)}): --precision=bfloat16" if fast else "no instructions for it"


def _gpus() -> list[Row]:
    if torch.backends.cuda.is_built() and torch.cuda.is_available():
        rows = []
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            rows.append(
                Row(f"GPU {index}", f"{found.name}, {found.total_memory / _GIB:.0f} GiB, {bf16}")
            )
        return rows
    if torch.backends.cuda.is_built():
        return [Row("GPU", "none found", "if there is one, see what nvidia-smi says")]
    return [Row("GPU", "none: torch is a CPU build", "for a GPU, install a CUDA build of torch")]


def _data_sets(data_path: Path) -> list[Row]:
    rows = []
    for path in sorted(data_path.glob("*/*.inter")) if data_path.is_dir() else []:
        name = path.parent.name
        if path.stem != name:
            continue
        matrices = path.parent.glob(f"{name}.*.npy")
        features = sorted(matrix.stem[len(name) + 1 :] for matrix in matrices)
        megabytes = path.stat().st_size / 1e6
        with_features = f"with {', '.join(features)}" if features else "without features"
        rows.append(Row(name, f"{megabytes:.1f} MB of interactions, {with_features}"))
    names = {row.name for row in rows}
    for name in ("ml-100k", "Mini"):
        if name not in names:
            rows.append(Row(name, f"made by the first run: --dataset={name}"))
    if not names:
        remedy = "--data_path=DIR if they are elsewhere; `prepare` makes one from your tables"
        rows.insert(0, Row("prepared", f"none in {data_path}", remedy))
    return rows


def _extras() -> list[Row]:
    rows = []
    for name, extra in EXTRAS.items():
        missing = [module for module in extra.modules if importlib.util.find_spec(module) is None]
        remedy = pip_install(name) if missing else ""
        value = f"{', '.join(missing)} missing" if missing else "installed"
        rows.append(Row(name, f"{value}: {extra.purpose}", remedy))
    return rows


def _disk(folder: Path) -> Row:
    free = shutil.disk_usage(folder).free / _GIB
    remedy = ""
    if not os.access(folder, os.W_OK):
        remedy = "this folder cannot be written; runs go to saved/, log/ and log_tensorboard/ in it"
    elif free < _LITTLE_SPACE:
        remedy = "runs may not fit; --checkpoint_dir=DIR writes elsewhere"
    return Row("here", f"{free:.1f} GiB free in {folder}", remedy)
