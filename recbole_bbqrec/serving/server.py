"""Processes of the service: uvicorn with one or several workers, and SIGHUP to reload."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import tempfile
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.reading import read_text

_SETTINGS = "RECBOLE_BBQREC_SERVE"  # environment variable that worker processes read
_APP = "recbole_bbqrec.serving.server:app_of_environment"
_LOADING = 120  # seconds that a worker may take to load its bundle, or hang
_SHUTDOWN = 30  # seconds that requests in progress are given


def require_extra() -> None:
    """Raise a UserError unless the libraries of the service are installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"serve needs {error.name}: {pip_install('serve')}.") from error


def read_token(path: Path | None) -> str | None:
    """Return the token in a file.

    Raises:
        UserError: the file is unreadable or empty.
    """
    if path is None:
        return None
    token = read_text(path, "a token", "Write the token into it.").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise UserError(f"{path} holds no token; expected one line of printable ASCII.")
    return token


def check_port(host: str, port: int) -> None:
    """Raise a UserError if nothing can listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"Cannot listen on {host}, port {port}: {(error.strerror or str(error)).lower()}. "
                "Choose another --port, or end what uses it."
            ) from error


def serve(
    run: Path, items: Path | None, token: str | None, host: str, port: int, workers: int
) -> None:
    """Serve until interrupted.

    Raises:
        UserError: the run cannot be loaded, or the port is in use.
    """
    require_extra()
    import uvicorn

    check_port(host, port)
    values = {"run": str(run.absolute()), "items": None if items is None else str(items.absolute())}
    with ExitStack() as stack:
        os.environ[_SETTINGS] = json.dumps({**values, "token": token})
        stack.callback(os.environ.pop, _SETTINGS, None)
        if workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="recbole_bbqrec-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            stack.callback(os.environ.pop, "PROMETHEUS_MULTIPROC_DIR", None)
        app = app_of_environment()  # here, so that a run that cannot be loaded is one error
        options: dict[str, Any] = {
            "host": host, "port": port, "log_level": "warning", "access_log": False,
            "timeout_graceful_shutdown": _SHUTDOWN,
        }  # fmt: skip
        if workers == 1:
            uvicorn.run(app, **options)
            return
        app.state.service.batcher.close()
        del app
        # At SIGHUP uvicorn starts a new worker for each old one, which it ends once the new one is
        # ready. One that is not in time is given up; earlier versions do not wait for it.
        if "timeout_worker_healthcheck" in inspect.signature(uvicorn.run).parameters:
            options["timeout_worker_healthcheck"] = _LOADING
        uvicorn.run(_APP, factory=True, workers=workers, **options)


def app_of_environment() -> Any:
    """Return the application of a worker process, which reloads its bundle at SIGHUP if alone."""
    from recbole_bbqrec.serving.app import ServiceSettings, create_app

    values = json.loads(os.environ[_SETTINGS])
    items = None if values["items"] is None else Path(values["items"])
    app = create_app(ServiceSettings(Path(values["run"]), items, values["token"]))
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ and hasattr(signal, "SIGHUP"):
        _reload_at_hangup(app)
    return app


def _reload_at_hangup(app: Any) -> None:
    """Reload at SIGHUP, once the event loop runs."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: Any) -> Any:
        async with inner(started) as state:
            loop = asyncio.get_running_loop()
            tasks: set[Any] = set()

            async def reload() -> None:
                with suppress(UserError):  # counted and the earlier bundle stays
                    await started.state.service.reload()

            def begin() -> None:
                tasks.add(task := loop.create_task(reload()))
                task.add_done_callback(tasks.discard)

            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(signal.SIGHUP, begin)
            yield state

    app.router.lifespan_context = lifespan
