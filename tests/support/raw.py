"""McAuley's three files of 2014 in their exact formats, small and synthetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

DAY = 86400
START = 1_356_998_400  # midnight, 1 January 2013


def asin(number: int) -> str:
    return f"B{number:09d}"


def review(user: str, item: str, day: int) -> dict[str, Any]:
    """One record with the fields and types of the public file."""
    return {
        "reviewerID": user, "asin": item, "reviewerName": 'Ann "reads" O\'Neil', "helpful": [0, 1],
        "reviewText": "Very nice \u2013 worth it", "overall": 5.0, "summary": "nice",
        "unixReviewTime": START + day * DAY, "reviewTime": "01 1, 2013",
    }  # fmt: skip


def metadata(item: str, title: str | None, description: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "asin": item, "price": 9.99, "imUrl": "http://images/x.jpg",
        "related": {"also_bought": [asin(1), asin(2)]},
        "salesRank": {"Beauty": 5}, "categories": [["Beauty", "Skin Care"]],
    }  # fmt: skip
    if title is not None:
        record["title"] = title
    if description is not None:
        record["description"] = description
    return record


def write_reviews(path: Path, records: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def write_metadata(path: Path, records: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(repr(record) + "\n" for record in records)


def image_record(item: str, vector: np.ndarray) -> bytes:
    return item.encode("ascii") + vector.astype("<f4").tobytes()


def write_raw(folder: Path, category: str = "Beauty", n_items: int = 200, n_users: int = 240,
              seed: int = 0) -> list[dict[str, Any]]:  # fmt: skip
    """Write the three files; returns the reviews, in the file's order (by ASIN, as published).

    Items lie on ten themes; a user stays mostly within one. Every user and item has five reviews
    or more. Item 3 has no title and no description, item 4 no metadata, items 5 and 6 no image;
    metadata and images also hold items that nobody reviewed.
    """
    rng = np.random.default_rng(seed)
    theme = np.arange(n_items) % 10
    reviews = []
    for user in range(n_users):
        weights = np.where(np.isin(theme, [user % 10]), 500.0, 1.0)
        items = rng.choice(n_items, size=7, replace=False, p=weights / weights.sum())
        # Everybody also buys one item of a round, so that none has too few reviews.
        items = list(dict.fromkeys([*items.tolist(), user % n_items, (user * 7 + 3) % n_items]))
        days = np.sort(rng.integers(0, 6, len(items)))
        reviews += [review(f"A{user:04d}", asin(i), int(d)) for i, d in zip(items, days)]
    counts = {asin(i): 0 for i in range(n_items)}
    for record in reviews:
        counts[record["asin"]] += 1
    for item, count in counts.items():
        for extra in range(max(0, 5 - count)):
            taken = {r["reviewerID"] for r in reviews if r["asin"] == item}
            user = next(f"A{u:04d}" for u in range(extra, n_users) if f"A{u:04d}" not in taken)
            reviews.append(review(user, item, 6))
    reviews.sort(key=lambda record: record["asin"])
    folder.mkdir(parents=True, exist_ok=True)
    write_reviews(folder / f"reviews_{category}_5.json.gz", reviews)
    described = [
        metadata(
            asin(i), f"theme{theme[i]} thing &amp; more", f"<b>A</b> theme{theme[i]} thing {i}"
        )
        for i in range(n_items + 20)
        if i not in (3, 4) and i < n_items
    ]
    described.append(metadata(asin(3), None, None))
    described += [metadata(asin(n_items + i), "never reviewed", None) for i in range(20)]
    write_metadata(folder / f"meta_{category}.json.gz", described)
    prototypes = rng.gamma(1.0, 2.0, (10, 4096)) * (rng.random((10, 4096)) < 0.1)
    with open(folder / f"image_features_{category}.b", "wb") as file:
        for item in rng.permutation(n_items + 10).tolist():
            if item not in (5, 6):
                noise = rng.random(4096) * (rng.random(4096) < 0.05)
                file.write(image_record(asin(item), prototypes[item % 10] + noise))
    return reviews
