"""Find the YAML files of ``properties/``, in the installed package or in the checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import recbole

_PACKAGE = Path(__file__).resolve().parents[1]


def properties_directory() -> Path:
    """Return the directory of ``overall.yaml``.

    Raises:
        FileNotFoundError: the package was installed without its YAML files.
    """
    for candidate in (_PACKAGE / "properties", _PACKAGE.parent / "properties"):
        if (candidate / "overall.yaml").is_file():
            return candidate
    raise FileNotFoundError(
        f"properties/overall.yaml is missing beside {_PACKAGE}; reinstall recbole_bbqrec."
    )


def overlay_files(
    model: str,
    dataset: str,
    bases: Sequence[str] = (),
    tuned_bases: Sequence[str] = (),
    own_source: Path | None = None,
) -> list[Path]:
    """Return our existing YAML files for a model on a data set, lowest precedence first.

    ``bases`` are the models whose options this one starts from, ``tuned_bases`` those whose options
    for the data set it takes, too; the most basic first. ``own_source`` is the file of a class of
    the user's own, beside which its options are.
    """
    root = properties_directory()
    theirs = [recbole_model_file(name) for name in bases]
    candidates = [
        *(path for path in theirs if path is not None),
        root / "overall.yaml",
        *(root / "model" / f"{name}.yaml" for name in (*bases, model)),
        *([own_source.with_name(f"{model}.yaml")] if own_source else []),
        root / "dataset" / f"{dataset}.yaml",
        *(root / "model" / f"{name}.{dataset}.yaml" for name in (*tuned_bases, model)),
    ]
    return [path for path in candidates if path.is_file()]


def neglected_properties() -> str | None:
    """Return a warning if the working directory has YAML files of options that no run reads."""
    here = Path("properties")
    if not here.is_dir() or here.resolve() == properties_directory().resolve():
        return None
    others = sorted(path for kind in ("model", "dataset") for path in (here / kind).glob("*.yaml"))
    others += [path for path in (here / "overall.yaml",) if path.is_file()]
    if not others:
        return None
    return (
        f"The YAML files in {here.absolute()} are not read, such as {others[0]}: those of the "
        f"package are, in {properties_directory()}. Give yours as --config_files={others[0]}."
    )


def recbole_model_file(model: str) -> Path | None:
    """Return RecBole's YAML file of a model's options, or None if it has none."""
    path = Path(recbole.__file__).parent / "properties" / "model" / f"{model}.yaml"
    return path if path.is_file() else None


def listing_files(model: str) -> list[Path]:
    """Return the files that list the options of one of RecBole's models: RecBole's and ours."""
    ours = properties_directory() / "model" / f"{model}.yaml"
    files = [recbole_model_file(model), ours if ours.is_file() else None]
    return [path for path in files if path is not None]


def packaged(path: str | Path) -> str:
    """Return a hint if ``path`` is absent, but the package has a file of that name.

    An installed package has its ``properties/`` inside, where the working directory of a checkout
    has them.
    """
    own = properties_directory().parent / path
    if Path(path).exists() or Path(path).parts[:1] != ("properties",) or not own.is_file():
        return ""
    return f" The package's own is {own}."
