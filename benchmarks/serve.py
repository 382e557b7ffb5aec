"""The service under load: throughput and latency with 1, 8 and 32 clients on this machine.

Starts `serve` on a free port, and clients as threads of this process; each keeps its connection and
asks again as soon as it is answered.

    python benchmarks/serve.py saved/RUN [--requests 2000] [--workers 1]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(port: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the service has ended")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)


def client(port: int, items: list[str], n: int, seed: int, taken: list, failed: list) -> None:
    draw = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(n):
        history = [draw.choice(items) for _ in range(draw.randrange(1, 13))]
        body = json.dumps({"history": history, "k": 20})
        start = time.perf_counter()
        connection.request("POST", "/recommend", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        taken.append(1000 * (time.perf_counter() - start))
        if answer.status != 200:
            failed.append(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    data = next((options.run / "data").glob("*/*.inter"))
    items = sorted({line.split("\t")[1] for line in data.read_text().splitlines()[1:]})
    port = free_port()
    words = ["serve", str(options.run), f"--port={port}", f"--workers={options.workers}"]
    process = subprocess.Popen([sys.executable, "-m", "recbole_bbqrec", *words], env=os.environ)
    try:
        wait_until_ready(port, process)
        client(port, items, 50, 0, [], [])  # warm
        print("| clients | requests a second | p50 ms | p99 ms | failed |\n|---|---|---|---|---|")
        for clients in (1, 8, 32):
            taken: list[float] = []
            failed: list[bytes] = []
            each = options.requests // clients
            threads = [
                threading.Thread(target=client, args=(port, items, each, seed, taken, failed))
                for seed in range(clients)
            ]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - start
            middle, late = np.percentile(taken, [50, 99])
            print(
                f"| {clients} | {len(taken) / seconds:,.0f} | {middle:.1f} | {late:.1f} | "
                f"{len(failed)} |"
            )
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
