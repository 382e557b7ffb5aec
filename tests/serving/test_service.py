"""The service: answers as the Python call gives them, and no request is a fault of the server."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import quote

import pytest

from recbole_bbqrec import load_run
from recbole_bbqrec.errors import UserError
from tests.support.requests import fuzzed

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi")
FUZZED = 300


@pytest.fixture(scope="module")
def bundle(crowded, tmp_path_factory):
    """A copy of a run's directory, and a link to it that a reload follows."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(crowded.files.directory, folder / "BBQRec-1")
    (folder / "current").symlink_to("BBQRec-1")
    return folder


@pytest.fixture(scope="module")
def client(bundle):
    from fastapi.testclient import TestClient

    from recbole_bbqrec.serving.app import ServiceSettings, create_app

    app = create_app(ServiceSettings(bundle / "current", token="secret"))
    headers = {"Authorization": "Bearer secret"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def run(bundle):
    return load_run(bundle / "BBQRec-1")


def test_it_answers_as_the_python_call(client, run):
    for question, call in (
        ({"user": "u0017"}, {"users": ["u0017"]}),
        ({"history": ["i0398", "i0395"]}, {"histories": [["i0398", "i0395"]]}),
        ({"history": ["i0398"], "deny": ["i0398", "i0001"]},
         {"histories": [["i0398"]], "deny": ["i0398", "i0001"]}),
        ({"history": ["i0398"], "allow": ["i0001", "i0002", "i0003"], "exclude_seen": True},
         {"histories": [["i0398"]], "allow": ["i0001", "i0002", "i0003"]}),
    ):  # fmt: skip
        k = 3
        answer = client.post("/recommend", json={**question, "k": k}).json()
        expected = run.recommend(**call, k=k)
        assert [item["item"] for item in answer["items"]] == expected["item"].tolist()
        assert [item["title"] for item in answer["items"]] == expected["title"].tolist()
        scores = [item["score"] for item in answer["items"]]
        assert scores == pytest.approx(expected["score"].tolist(), abs=1e-4)
        assert answer["run"] == "BBQRec-1"


def test_many_at_once_get_the_answers_of_one_at_a_time(client):
    questions = [{"history": [f"i{n:04d}", "i0395"], "k": 3 + n % 2} for n in range(1, 25)]
    alone = [client.post("/recommend", json=question).json() for question in questions]
    together: list = [None] * len(questions)

    def ask(place: int) -> None:
        together[place] = client.post("/recommend", json=questions[place]).json()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together):
        assert [i["item"] for i in one["items"]] == [i["item"] for i in other["items"]]


def test_seen_items_are_left_out(client, run):
    seen = run.recommender().seen_by(["u0017"])[0]
    tokens = set(run.recommender().item_tokens[seen[seen > 0]])
    answer = client.post("/recommend", json={"user": "u0017", "k": 50, "exclude_seen": True}).json()
    assert len(answer["items"]) == 50 and not tokens & {i["item"] for i in answer["items"]}


def test_an_item_has_a_title_an_id_and_neighbours(client, run):
    shown = client.get("/items/i0398").json()
    assert shown["title"] and list(shown["semantic_id"]) == ["id", "text", "image"]
    row = run.semantic_ids().set_index("item").loc["i0398"]
    assert shown["semantic_id"]["text"] == row[["level1/text", "level2/text"]].tolist()
    assert len(shown["neighbours"]) == 10 and shown["neighbours"][0]["item"] != "i0398"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "Give either `user` or `history`"),
        ({"user": "u0001", "history": ["i0001"]}, 400, "Give either"),
        ({"user": "nobody"}, 404, "There is no user 'nobody'"),
        ({"history": ["nothing"]}, 404, "No item of the history is known"),
        ({"history": []}, 404, "The history is empty"),
        ({"history": ["i0001"], "k": 0}, 422, "k: "),
        ({"history": ["i0001"], "k": "3"}, 422, "k: "),
        ({"history": ["i0001"], "speed": 3}, 422, "speed"),
        (
            {"history": ["i0001"], "allow": ["nothing"]},
            400,
            "No item of `allow` is known (nothing)",
        ),
        ({"history": ["i0001"], "where": ["price"]}, 400, "--where is 'price'"),
        ({"history": ["i0001"], "where": ["price < 3"]}, 400, "data have none (Mini.item_table"),
        ({"history": ["\ud800"]}, 422, ""),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client, body, status, text):
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    answer = client.post("/recommend", content=content, headers=headers)
    assert (answer.status_code, text in answer.json()["error"]) == (status, True) or (
        not text and answer.status_code in (404, 422)
    )


def test_popular_items_are_listed_only_if_asked_for(client, run):
    most = run.recommender().popular(3)
    expected = [{"item": str(run.recommender().item_tokens[n]), "score": None} for n in most]
    for unknown in ({"user": "nobody"}, {"history": []}, {"history": ["nothing"]}):
        body = {**unknown, "k": 3, "fallback": "popular"}
        answer = client.post("/recommend", json=body).json()
        assert [{**item, "title": ""} for item in answer["items"]] == [
            {**item, "title": ""} for item in expected
        ]
    body = {"user": "u0017", "k": 3}
    known = client.post("/recommend", json={**body, "fallback": "popular"}).json()
    assert known == client.post("/recommend", json=body).json()
    body = {"history": [], "k": 2, "fallback": "popular", "deny": [expected[0]["item"]]}
    denied = client.post("/recommend", json=body).json()["items"]
    assert [item["item"] for item in denied] == [item["item"] for item in expected[1:]]
    assert client.post("/recommend", json={**body, "fallback": "best"}).status_code == 422


def test_unknown_items_of_a_history_are_named(client):
    body = {"history": ["i0398", "nothing", "i0395"], "k": 2}
    answer = client.post("/recommend", json=body).json()
    assert answer["unknown"] == ["nothing"] and len(answer["items"]) == 2
    body = {"user": "u0017", "k": 2, "allow": ["i0398", "no shelf"], "deny": ["nowhere"]}
    answer = client.post("/recommend", json=body).json()
    assert answer["unknown"] == ["no shelf", "nowhere"] and len(answer["items"]) == 1


def test_limits_and_the_token(client):
    assert client.post("/recommend", content=b" " * (1 << 21)).status_code == 413
    chunks = (b" " * (1 << 16) for _ in range(40))
    assert client.post("/recommend", content=chunks).status_code == 413
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        for method, path in (("POST", "/recommend"), ("GET", "/items/i0001"), ("POST", "/reload")):
            assert client.request(method, path, headers=headers).status_code == 401
    assert client.get("/health", headers={"Authorization": ""}).status_code == 200
    assert client.get("/ready").json()["run"] == "BBQRec-1"


def test_it_measures_itself_and_describes_itself(client):
    client.post("/recommend", json={"history": ["i0398"]})
    text = client.get("/metrics").text
    assert 'recommend_seconds_count{status="200"}' in text and "batch_size_bucket" in text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/recommend", "/items/{item}", "/health", "/ready", "/metrics", "/reload"} <= set(paths)
    assert client.get("/docs").status_code == 200


def test_a_reload_follows_the_link_and_drops_no_request(client, bundle):
    shutil.copytree(bundle / "BBQRec-1", bundle / "BBQRec-2")
    failed, runs, stop = [], set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = client.post("/recommend", json={"history": ["i0398"], "k": 2})
            failed.extend([] if answer.status_code == 200 else [answer.text])
            runs.add(answer.json().get("run"))

    thread = threading.Thread(target=ask)
    thread.start()
    (bundle / "next").symlink_to("BBQRec-2")
    (bundle / "next").replace(bundle / "current")
    assert client.post("/reload").json()["run"] == "BBQRec-2"
    assert client.post("/recommend", json={"history": ["i0398"]}).json()["run"] == "BBQRec-2"
    stop.set()
    thread.join()
    assert not failed and runs == {"BBQRec-1", "BBQRec-2"}
    (bundle / "BBQRec-2" / "data" / "manifest.json").write_text("{")
    broken = client.post("/reload")
    assert broken.status_code == 409 and "earlier bundle stays in use" in broken.json()["error"]
    assert client.post("/recommend", json={"history": ["i0398"]}).status_code == 200


def test_strange_requests_are_no_fault_of_the_server(client, run):
    known = run.recommender()
    items, users = list(known.item_ids)[:50], list(known.user_ids)[:50]
    statuses = set()
    for seed in range(FUZZED):
        method, path, arguments = fuzzed(seed, items, users)
        if path.startswith("/reload"):
            continue
        path = quote(path.encode("utf-8", "replace").decode(), safe="/%")
        answer = client.request(method, path, **arguments)
        assert answer.status_code < 500, (seed, answer.text)
        statuses.add(answer.status_code)
    assert {200, 404, 405, 422} <= statuses


def test_a_bundle_that_cannot_be_loaded_is_one_error(tmp_path):
    from recbole_bbqrec.serving.app import ServiceSettings, create_app

    with pytest.raises(UserError, match="There is no run"):
        create_app(ServiceSettings(tmp_path / "nowhere"))


def test_a_port_in_use_and_an_empty_token_are_named(tmp_path):
    import socket

    from recbole_bbqrec.serving.server import check_port, read_token

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="Cannot listen on 127.0.0.1, port .*in use"):
            check_port("127.0.0.1", taken.getsockname()[1])
    (tmp_path / "token").write_text("\n")
    with pytest.raises(UserError, match="holds no token"):
        read_token(tmp_path / "token")


def test_workers_that_replace_others_are_given_time_to_load(monkeypatch):
    """Five seconds, which is uvicorn's limit, are too few to import RecBole and load a bundle."""
    import uvicorn

    from recbole_bbqrec.serving import server

    started: list = []

    def run(app, *, timeout_worker_healthcheck=5, **options):
        started.append((app, timeout_worker_healthcheck, options["workers"]))

    monkeypatch.setattr(server, "app_of_environment", MagicMock())
    monkeypatch.setattr(uvicorn, "run", run)
    server.serve(Path("run"), None, None, "127.0.0.1", 8000, workers=2)
    assert started == [(server._APP, 120, 2)]
    monkeypatch.setattr(uvicorn, "run", lambda app, factory, workers, **options: None)
    server.serve(Path("run"), None, None, "127.0.0.1", 8000, workers=2)  # an earlier version
