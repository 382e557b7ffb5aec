"""Files of defaults."""

from __future__ import annotations

from recbole_bbqrec.config import values
from recbole_bbqrec.config.values import read_defaults, read_yaml


def test_defaults_are_parsed_once_and_anew_when_they_have_changed(tmp_path, monkeypatch):
    path, parsed = tmp_path / "Mine.yaml", []
    monkeypatch.setattr(values, "read_yaml", lambda path: parsed.append(path) or read_yaml(path))
    path.write_text("topk: [5]\n")
    for _ in range(2):
        read_defaults(path)["topk"].append(10)
    assert read_defaults(path) == {"topk": [5]} and len(parsed) == 1
    path.write_text("topk: [5, 10]\n")
    assert read_defaults(path) == {"topk": [5, 10]}
