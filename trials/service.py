"""Requests of every kind that a stranger may send to the service: none is a fault of the server.

A tiny run is trained, and the application is asked in this process. A case goes wrong if the answer
is a 5xx, if it takes more than ten seconds, or if afterwards an ordinary request is not answered as
before.

    python trials/service.py --n 10000 --seed 0
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import common

from tests.support.requests import fuzzed
from tests.support.runs import finished_run

SLOW = 10.0  # seconds


def main() -> int:
    options = common.arguments(__doc__, n=10_000, small=500)
    from fastapi.testclient import TestClient

    from recbole_bbqrec.serving.app import ServiceSettings, create_app

    with tempfile.TemporaryDirectory() as folder:
        place = options.output or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        run = finished_run(place, "BBQRec", common.TINY).files.directory
        statuses: Counter[int] = Counter()
        wrong = 0
        with TestClient(create_app(ServiceSettings(run)), raise_server_exceptions=False) as client:
            known = client.app.state.service.engine.recommender
            items, users = list(known.item_ids), list(known.user_ids)
            ordinary = {"history": items[:3], "k": 5}
            expected = client.post("/recommend", json=ordinary).json()
            for seed in range(options.seed, options.seed + options.n):
                method, path, arguments = fuzzed(seed, items, users)
                path = quote(path.encode("utf-8", "replace").decode(), safe="/%")
                start = time.perf_counter()
                answer = client.request(method, path, **arguments)
                seconds = time.perf_counter() - start
                statuses[answer.status_code] += 1
                if answer.status_code >= 500 or seconds > SLOW:
                    wrong += 1
                    shown = f"{answer.status_code} after {seconds:.1f} s: {method} {path}"
                    print(f"seed {seed}: {shown}")
                if seed % 100 == 0:
                    wrong += client.post("/recommend", json=ordinary).json() != expected
        shown = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
        print(f"{options.n:,} requests; {shown}; {wrong} went wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
