"""Downloads from a local server that cuts, refuses, forgets ranges and lies about sizes."""

from __future__ import annotations

import errno
import gzip
import http.server
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.mcauley import download as module
from recbole_bbqrec.prepare.mcauley.download import DownloadError, download, gzip_fault

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """One file under every path; ``script`` says, request by request, what goes wrong."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.tag: str | None = '"v1"'
        self.ranges = True
        self.script: list = []  # None: all is well; int: that status; ("cut", n); ("length", n)
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        fault = self.script.pop(0) if self.script else None
        if isinstance(fault, int):
            return handler.send_error(fault)
        start = 0
        if asked and self.ranges and handler.headers.get("If-Range") == self.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.content):
                return handler.send_error(416)
        body = self.content[start:]
        length = len(body)
        if fault and fault[0] == "length":
            length = fault[1]
        if fault and fault[0] == "cut":
            body = body[: fault[1]]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(length))
        if self.tag:
            handler.send_header("ETag", self.tag)
        if start:
            begin = start + (fault[1] if fault and fault[0] == "shift" else 0)
            total = len(self.content)
            handler.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        handler.end_headers()
        handler.wfile.write(body)
        return handler.wfile.flush()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def get(server, tmp_path):
    """Download ``/file`` of the server without waiting; returns the seconds it would have."""

    def call(urls=None, check=None):
        waits = []
        download(urls or [server.base + "/file"], tmp_path / "out" / "file", check, waits.append)
        assert (tmp_path / "out" / "file").read_bytes() == server.content
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["file"]
        return waits

    return call


def test_whole_file(server, get):
    assert get() == []
    assert server.requests == [("/file", None)]


def test_cut_connections_go_on_where_they_broke(server, get):
    server.script = [("cut", 100_000), ("cut", 50_000)]
    assert get() == [2.0, 2.0]  # each attempt gained bytes: no growing impatience
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_more_cuts_than_attempts(server, get):
    server.script = [("cut", 20_000)] * 9
    get()
    assert len(server.requests) == 10


def test_interrupted_call_is_continued_by_the_next(server, get, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    server.script = [("cut", 123_456)]
    with pytest.raises(KeyboardInterrupt):
        download([server.base + "/file"], tmp_path / "out" / "file", wait=interrupt)
    assert (tmp_path / "out" / "file.part").stat().st_size == 123_456
    get()
    assert server.requests[-1] == ("/file", "bytes=123456-")


def test_file_that_changed_meanwhile_starts_anew(server, get):
    server.script = [("cut", 100_000)]
    answer = server.answer

    def change(handler):
        if server.requests:
            server.content, server.tag = CONTENT[::-1], '"v2"'
        answer(handler)

    server.answer = change
    get()


@pytest.mark.parametrize("trouble", ["no ranges", "no tag", "weak tag"])
def test_servers_that_cannot_resume(server, get, trouble):
    server.ranges = trouble != "no ranges"
    server.tag = {"no tag": None, "weak tag": 'W/"v1"'}.get(trouble, server.tag)
    server.script = [("cut", 100_000)]
    get()
    assert len(server.requests) == 2


def test_answer_with_another_range_starts_anew(server, get):
    server.script = [("cut", 100_000), ("shift", 5)]
    get()
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", None]


def test_part_that_is_complete_already(server, get, tmp_path):
    """The check failed to run the last time: nothing is left to send, and the server says 416."""

    def broken(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.base + "/file"], tmp_path / "out" / "file", check=broken)
    get()
    assert len(server.requests) == 2


def test_passing_errors_are_waited_for_ever_longer(server, get):
    server.script = [500, 503, 429]
    assert get() == [2.0, 4.0, 8.0]


def test_lasting_error_goes_to_the_next_address(server, get):
    server.script = [404]
    assert get([server.base + "/gone", server.base + "/file"]) == []
    assert [path for path, _ in server.requests] == ["/gone", "/file"]


@pytest.mark.parametrize("same", [True, False])
def test_second_address_continues_the_same_file_only(server, get, same):
    server.script = [("cut", 100_000), 404]
    answer = server.answer

    def other_file(handler):
        if handler.path == "/two" and not same:
            server.content, server.tag = CONTENT[::-1], '"other"'
        answer(handler)

    server.answer = other_file
    get([server.base + "/one", server.base + "/two"])  # the bytes are those of /two throughout
    asked = "bytes=100000-"
    assert server.requests == [("/one", None), ("/one", asked), ("/two", asked)]


def test_same_mark_but_another_size_starts_anew(server, get):
    server.script = [("cut", 100_000)]
    answer = server.answer

    def grown(handler):
        if server.requests:
            server.content = CONTENT + b"more"
        answer(handler)

    server.answer = grown
    get()
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", None]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        download(["http://host.invalid/"], tmp_path / "file" / "folder" / "x")


def test_all_fail(server, tmp_path):
    server.script = [404, 500, 500, 500, 500, 500]
    waits = []
    with pytest.raises(DownloadError, match=": HTTP status 404 .*: HTTP status 500") as caught:
        download([server.base + "/a", server.base + "/b"], tmp_path / "file", wait=waits.append)
    assert len(server.requests) == 6 and waits == [2.0, 4.0, 8.0, 16.0]
    assert server.base.removeprefix("http://") in str(caught.value)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("length", [299_000, 301_000])
def test_wrong_size_is_no_success(server, tmp_path, length):
    """A size that the bytes do not bear out: too few are missing bytes, too many are cut off."""
    server.tag = None
    server.script = [("length", length)] * 20
    if length > len(CONTENT):
        with pytest.raises(DownloadError, match="ended after 300,000 of 301,000 bytes"):
            download([server.base], tmp_path / "file", wait=lambda _: None)
    else:
        # HTTP ends the body at the size given; only the check can tell that it is not whole.
        with pytest.raises(DownloadError, match="the file has 299,000 bytes"):
            download([server.base], tmp_path / "file", _whole, lambda _: None)
    assert not (tmp_path / "file").exists()


def _whole(path):
    size = path.stat().st_size
    return None if size == len(CONTENT) else f"has {size:,} bytes"


def test_damaged_file_is_fetched_again_and_never_named(server, get, tmp_path):
    whole = gzip.compress(CONTENT)
    server.content = whole[:1000] + b"\0\0\0" + whole[1003:]
    with pytest.raises(DownloadError, match="not a whole gzip file"):
        download([server.base], tmp_path / "out" / "file", gzip_fault, lambda _: None)
    assert not (tmp_path / "out" / "file").exists()
    assert len(server.requests) == 5
    server.content, server.tag = whole, '"v2"'
    get(check=gzip_fault)


def test_no_such_host_is_not_waited_for(tmp_path):
    waits = []
    with pytest.raises(DownloadError, match="host.invalid"):
        download(["http://host.invalid/file"], tmp_path / "file", wait=waits.append)
    assert waits == []


def test_nobody_listens(tmp_path, server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DownloadError, match="refused"):
        download([server.base], tmp_path / "file", wait=lambda _: None)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file", "name"])
def test_other_addresses(tmp_path, url):
    with pytest.raises(UserError, match="expected an http or https address"):
        download([url], tmp_path / "file")


def test_too_large_for_the_disk(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(UserError, match="No room on the disk"):
        download([server.base], tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_disk_that_fills_keeps_what_there_is(server, get, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, block):
            self.file.write(block[:70_000])
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = open
    monkeypatch.setattr(module, "open", lambda *a: Full(opened(*a)), raising=False)
    with pytest.raises(UserError, match="No room on the disk.*kept in file.part"):
        download([server.base + "/file"], tmp_path / "out" / "file")
    monkeypatch.undo()
    get()
    assert server.requests[-1] == ("/file", "bytes=70000-")
