"""The service's web interface: routes, limits, the token, and errors as texts."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException as StarletteHTTPException

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving.batching import Batcher
from recbole_bbqrec.serving.engine import Answer, Engine, Question, UnknownError
from recbole_bbqrec.serving.limits import BodyLimit
from recbole_bbqrec.version import __version__

logger = logging.getLogger(__name__)

# Names, because pydantic evaluates annotations, and Python 3.9 knows no X | None.
Token = Annotated[str, StringConstraints(min_length=1, max_length=256)]
OptionalToken = Optional[Token]
OptionalHistory = Optional[Annotated[list[Token], Field(max_length=1000)]]
OptionalTokens = Optional[Annotated[list[Token], Field(max_length=10_000)]]
OptionalFallback = Optional[Literal["popular"]]
OptionalScore = Optional[float]
OptionalHeader = Annotated[Optional[str], Header()]


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of a service.

    Attributes:
        run: the run; a link is resolved anew at every reload.
        items: table with the columns of conditions, or None.
        token: what a request must bring, or None: anybody may ask, and nobody may reload by POST.
        largest_body: bytes of a request's body; more is refused.
    """

    run: Path
    items: Path | None = None
    token: str | None = field(default=None, repr=False)
    largest_body: int = 1 << 20


class Asked(BaseModel):
    """A request for recommendations: a user of the data set, or a history, oldest item first.

    ``fallback`` "popular" asks for the items with the most events where nothing is known.
    """

    model_config = ConfigDict(extra="forbid")

    user: OptionalToken = None
    history: OptionalHistory = None
    k: Annotated[int, Field(ge=1, le=100, strict=True)] = 10
    exclude_seen: bool = False
    allow: OptionalTokens = None
    deny: Annotated[list[Token], Field(max_length=10_000)] = []
    where: Annotated[list[Token], Field(max_length=8)] = []
    fallback: OptionalFallback = None

    def question(self) -> Question:
        """Return the question; raise a UserError unless it has one of user and history."""
        if (self.user is None) == (self.history is None):
            raise UserError("Give either `user` or `history`.")
        return Question(
            k=self.k,
            user=self.user,
            history=tuple(self.history or ()),
            exclude_seen=self.exclude_seen,
            allow=None if self.allow is None else tuple(sorted(set(self.allow))),
            deny=tuple(sorted(set(self.deny))),
            where=tuple(self.where),
            fallback=self.fallback is not None,
        )


class Recommendation(BaseModel):
    """One item of a list; without a score it is there as the most popular one."""

    item: str
    score: OptionalScore
    title: str = ""


class Recommendations(BaseModel):
    """The best items, best first.

    ``unknown`` are items of ``history``, ``allow`` and ``deny`` that the catalogue lacks: left out.
    """

    items: list[Recommendation]
    unknown: list[str] = []
    run: str


class Service:
    """The bundle in use, its batcher and its measurements."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        kinds: dict[str, Any] = {"registry": self.registry}
        self.seconds = Histogram(
            "recommend_seconds", "Time of an answer", ["status"], **kinds,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )  # fmt: skip
        self.batch = Histogram(
            "batch_size",
            "Requests answered together",
            **kinds,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self.reloads = Counter("reloads", "Reloads of the bundle", ["result"], **kinds)
        self.loaded = Gauge(
            "bundle_loaded_seconds", "When the bundle was loaded", **kinds,
            multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._reloading = threading.Lock()
        self.engine = self._load()
        self.batcher = Batcher(self._answer, lambda pair: (id(pair[0]), pair[1].group),
                               observe=self.batch.observe)  # fmt: skip

    def _load(self) -> Engine:
        engine = Engine(self.settings.run, self.settings.items)
        self.loaded.set(time.time())
        return engine

    @staticmethod
    def _answer(pairs: Any) -> list[Answer]:
        """Answer on the bundle that each question was checked on, also in the midst of a reload."""
        return list(pairs[0][0].answer([question for _, question in pairs]))

    async def recommend(self, asked: Asked) -> Recommendations:
        """Check and answer a request."""
        engine = self.engine
        question, unknown = await asyncio.to_thread(engine.check, asked.question())
        answer = await asyncio.wrap_future(self.batcher.submit((engine, question)))
        items = [Recommendation(**item) for item in answer.items]
        return Recommendations(items=items, unknown=unknown, run=engine.run.name)

    async def reload(self) -> Engine:
        """Load the bundle anew beside the present one, which goes on if that fails."""
        return await asyncio.to_thread(self._reload)

    def _reload(self) -> Engine:
        with self._reloading:
            try:
                self.engine = self._load()
            except BaseException as error:
                self.reloads.labels("failed").inc()
                logger.error("The bundle stays as it is: %s", error)
                raise
            self.reloads.labels("done").inc()
            logger.warning("Serving %s, %s", self.engine.run, self.engine.name)
            return self.engine

    def metrics(self) -> bytes:
        """Return the measurements of all worker processes in Prometheus' text format."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)


class _Text(Response):
    """A JSON object whose text may hold any characters, half of a surrogate pair included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, default=str).encode()


def _refused(status: int, text: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return _Text({"error": text}, status_code=status, headers=headers)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Used = Annotated[Service, Depends(_service)]


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application, with the bundle loaded.

    Raises:
        UserError: the run cannot be loaded.
    """
    serving = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(serving.batcher.close)

    app = FastAPI(
        title="recbole_bbqrec", version=__version__, lifespan=lifespan, default_response_class=_Text
    )
    app.state.service = serving
    app.add_middleware(BodyLimit, largest=settings.largest_body)

    def authorised(authorization: OptionalHeader = None) -> None:
        if settings.token is None:
            return
        given = (authorization or "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {settings.token}".encode()):
            raise HTTPException(401, "Give the token: Authorization: Bearer TOKEN.")

    Guard = Depends(authorised)

    @app.middleware("http")
    async def measured(
        request: Request, call: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        start = time.perf_counter()
        response = await call(request)
        if request.url.path == "/recommend":
            seconds = time.perf_counter() - start
            serving.seconds.labels(str(response.status_code)).observe(seconds)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:])
        return _refused(422, f"{place}: {found['msg']}" if place else str(found["msg"]))

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> Response:
        return _refused(404 if isinstance(error, UnknownError) else 400, str(error))

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return _refused(error.status_code, str(error.detail))

    @app.post("/recommend", dependencies=[Guard])
    async def recommend(asked: Asked, used: Used) -> Recommendations:
        """Recommend the next items of a user, or after a history."""
        return await used.recommend(asked)

    @app.get("/items/{item:path}", dependencies=[Guard])
    async def item(item: str, used: Used) -> dict[str, Any]:
        """Describe an item: its title, semantic ID and nearest items."""
        return await asyncio.to_thread(used.engine.item, item)

    @app.post("/reload", dependencies=[Guard])
    async def reload(used: Used) -> dict[str, str]:
        """Load the run anew, as after its link was pointed at a newer one."""
        if settings.token is None:
            raise HTTPException(403, "Reloading by POST needs a service with a token.")
        try:
            engine = await used.reload()
        except UserError as error:
            raise HTTPException(409, f"The earlier bundle stays in use: {error}") from error
        return {"run": engine.run.name, "model": engine.name}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok", "version": __version__}

    @app.get("/ready")
    async def ready(used: Used) -> dict[str, str]:
        """Say which run answers."""
        return {"status": "ready", "run": used.engine.run.name, "model": used.engine.name}

    @app.get("/metrics")
    async def metrics(used: Used) -> Response:
        """Return the measurements in Prometheus' text format."""
        return Response(used.metrics(), media_type=CONTENT_TYPE_LATEST)

    return app
