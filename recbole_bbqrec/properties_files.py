"""Where the YAML files of ``properties/`` are: inside the installed package or in the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def properties_directory() -> Path:
    """The directory that holds ``overall.yaml``.

    Raises:
        FileNotFoundError: the package was installed without its YAML files.
    """
    for candidate in (_PACKAGE / "properties", _PACKAGE.parent / "properties"):
        if (candidate / "overall.yaml").is_file():
            return candidate
    raise FileNotFoundError(
        f"properties/overall.yaml is missing beside {_PACKAGE}; reinstall recbole_bbqrec."
    )


def overlay_files(model: str, dataset: str) -> list[Path]:
    """Our YAML files for one model on one data set that exist, lowest precedence first."""
    root = properties_directory()
    candidates = [
        root / "overall.yaml",
        root / "model" / f"{model}.yaml",
        root / "dataset" / f"{dataset}.yaml",
        root / "model" / f"{model}.{dataset}.yaml",
    ]
    return [path for path in candidates if path.is_file()]
