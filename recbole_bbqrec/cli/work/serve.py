"""``python -m recbole_bbqrec serve``: recommendations of a finished run over HTTP."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError, pip_install

DESCRIPTION = """\
Serve recommendations of a finished run over HTTP: POST /recommend, GET /items/ITEM, /health,
/ready, /metrics, and /docs with the description of all. Requests that arrive together are answered
together. SIGHUP, or POST /reload with the token, loads the run anew without dropping a request."""

NOTES = f"""\
It needs {pip_install("serve")}. It listens on this machine alone unless --host names
another address; then give a token, and put a proxy with TLS before it."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``serve``."""
    describe(parser, DESCRIPTION, "saved/BBQRec-Nov-27-2026_10-00-00 --port=8000", NOTES)
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>; a link is resolved anew at every reload", type=Path)
    add("--items", "FILE", "table with the columns of `where` (default: the run's own, of "
        "`prepare --items` or NAME.item)", type=Path)  # fmt: skip
    add = parser.group("service")
    add("--host", "ADDRESS", "address to listen on", default="127.0.0.1")
    add("--port", "N", "port to listen on", type=int, default=8000)
    add("--workers", "N", "processes, each with its own copy of the model", type=int, default=1)
    add("--token_file", "FILE", "file with the token that requests must bring (default: none)",
        type=Path)  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Serve until interrupted.

    Raises:
        UserError: a library, the run or the token is missing, or the port is in use.
    """
    from recbole_bbqrec.serving.server import read_token, serve

    if not 1 <= args.port < 1 << 16 or args.workers < 1:
        raise UserError(
            f"--port is {args.port} and --workers {args.workers}; expected a port of 1 to 65535 "
            "and at least one worker."
        )
    token = read_token(args.token_file)
    print(f"serve: http://{args.host}:{args.port}/docs", file=sys.stderr)
    serve(args.run, args.items, token, args.host, args.port, args.workers)
    return 0
