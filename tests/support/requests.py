"""Requests of every kind that a stranger may send to the service."""

from __future__ import annotations

import json
import random
import string
from typing import Any

_FIELDS = ("user", "history", "k", "exclude_seen", "allow", "deny", "where", "x")
_PATHS = ("/items/", "/items/../", "/", "/recommend/", "/docs", "/reload", "/%00")
_CONDITIONS = ("price < 3", "x = ' OR 1=1 --", "", "item_id contains 1")


def fuzzed(seed: int, items: list[str], users: list[str]) -> tuple[str, str, dict[str, Any]]:
    """Return method, path and arguments of one request, drawn by ``seed``."""
    draw = random.Random(seed)
    kind = draw.random()
    if kind < 0.15:
        path = draw.choice(_PATHS)
        return draw.choice(["GET", "POST", "PUT", "DELETE"]), path + _text(draw), {}
    if kind < 0.25:
        body = bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
        return "POST", "/recommend", {"content": body, "headers": _headers(draw)}
    if kind < 0.35:
        depth = draw.choice([10, 1000, 100_000])
        return "POST", "/recommend", {
            "content": "[" * depth, "headers": {"content-type": "application/json"}
        }  # fmt: skip
    body = {name: _value(draw, items, users) for name in draw.sample(_FIELDS, draw.randrange(5))}
    if draw.random() < 0.6:
        body.pop("user", None)
        body["history"] = [draw.choice(items) for _ in range(draw.randrange(1, 30))]
    text = json.dumps(body)
    if draw.random() < 0.1:
        text = text[: draw.randrange(len(text))]
    return "POST", "/recommend", {
        "content": text.encode("utf-8", "surrogatepass"),
        "headers": {"content-type": "application/json"},
    }  # fmt: skip


def _value(draw: random.Random, items: list[str], users: list[str], depth: int = 0) -> Any:
    kinds = [
        lambda: draw.choice(items),
        lambda: draw.choice(users),
        lambda: [draw.choice(items) for _ in range(draw.randrange(40))],
        lambda: draw.choice([0, 1, 5, 100, 101, -1, 10**30, 1.5, float("nan"), float("inf")]),
        lambda: draw.choice([True, False, None]),
        lambda: _text(draw),
        lambda: [draw.choice([*_CONDITIONS, _text(draw)])],
        lambda: {_text(draw): 1},
    ]  # fmt: skip
    if depth < 3:
        kinds.append(lambda: [_value(draw, items, users, depth + 1) for _ in range(3)])
    return draw.choice(kinds)()


def _text(draw: random.Random) -> str:
    letters = string.printable + "\ud800\x00é漢😀'\"\\;%"
    return "".join(draw.choice(letters) for _ in range(draw.choice([0, 1, 8, 300])))


def _headers(draw: random.Random) -> dict[str, str]:
    kinds = ["application/json", "text/plain", "multipart/form-data; boundary=x", ""]
    return {"content-type": draw.choice(kinds), "authorization": draw.choice(["", "Bearer x"])}
