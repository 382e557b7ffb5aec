"""A wheel built from the checkout carries its YAML files and finds them when installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from recbole_bbqrec.onboarding.environment import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
#: Files of the checkout that the wheel is built from.
IN_THE_WHEEL = (
    "recbole_bbqrec", "properties", "setup.cfg", "pyproject.toml", "README.md", "LICENSE",
)  # fmt: skip


def yaml_files() -> set[str]:
    root = ROOT / "properties"
    return {str(path.relative_to(root)) for path in root.rglob("*.yaml")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel's content in a directory of its own, built from a copy of the checkout."""
    pytest.importorskip("build", reason="the `build` package makes the wheel")
    pytest.importorskip("setuptools", reason="built without isolation")
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "source"
    subprocess.run(["mkdir", "-p", str(copy)], check=True)
    subprocess.run(
        ["cp", "-r", *(str(ROOT / name) for name in IN_THE_WHEEL), str(copy)], check=True
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), copy],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = work.glob("*.whl")
    target = work / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_wheel_has_every_module_and_yaml(installed):
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "recbole_bbqrec").rglob("*.py")}
    found = {str(p.relative_to(installed)) for p in installed.rglob("*.py")}
    assert modules <= found
    root = installed / "recbole_bbqrec" / "properties"
    assert {str(p.relative_to(root)) for p in root.rglob("*.yaml")} == yaml_files()
    page = Path("recbole_bbqrec") / "experiment" / "report_card" / "page"
    parts = {path.name for path in (ROOT / page).iterdir()}
    assert {path.name for path in (installed / page).iterdir()} == parts >= {"report.css"}


@pytest.mark.slow
def test_installed_package_finds_its_yaml(installed, tmp_path):
    script = (
        "import recbole_bbqrec\n"
        "from recbole_bbqrec.config.config import BBQRecConfig\n"
        "from recbole_bbqrec.config.yaml_files import properties_directory\n"
        "print(properties_directory())\n"
        "print(BBQRecConfig('BBQRec', 'Mini')['codebook_levels'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": ""}, check=True,
    )  # fmt: skip
    lines = done.stdout.split()
    assert lines == [str(installed / "recbole_bbqrec" / "properties"), "3"]


@pytest.mark.slow
def test_recbole_quick_start_is_never_imported(installed, tmp_path):
    """RecBole's quick_start alone needs ray."""
    script = (
        "import sys, pkgutil, importlib, recbole_bbqrec\n"
        "for m in pkgutil.walk_packages(recbole_bbqrec.__path__, 'recbole_bbqrec.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "assert 'recbole.quick_start' not in sys.modules and 'ray' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True,
        env={"PYTHONPATH": str(installed), "PATH": ""},
    )  # fmt: skip


def test_workflows_and_image_name_what_there_is():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            commands = [step["run"] for step in job["steps"] if "run" in step]
            scripts = [text.split()[0] for text in commands if text.startswith(".ci/")]
            assert commands and all(os.access(ROOT / script, os.X_OK) for script in scripts)
    copied = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert {f"!{name}" for name in IN_THE_WHEEL} <= set(copied.split())
    extras = re.search(r"EXTRAS=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert extras and set(extras[1].split(",")) <= set(EXTRAS)
