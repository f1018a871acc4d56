"""The HTTP server: OpenAI's chat completions and ``/v1/face`` on one ``BatchingService``; see docs/serving.md.

A request acquires its slot before its body is read, which bounds the queue and its memory. CPU-bound work (JSON,
base64, image decoding, face detection) runs in a few worker threads. If the client disconnects or its time is up, its
pending work is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from semanticface import __version__
from semanticface.inference.predictor import Prediction, PreparedFace
from semanticface.prompts import load_prompt
from semanticface.semantics.answer import answer_schema
from semanticface.serving import face_api, openai_api
from semanticface.serving.batching import BatchingService, UnavailableError
from semanticface.serving.middleware import RequestGuard, drain
from semanticface.serving.requests import Options, Picture, Refusal, RefusedError, error_body, read_request

T = TypeVar("T")

_MAX_BUFFERED = 16
"""Memory for all request bodies together, in bodies of the maximum size."""
_WORKERS = 2
"""Threads that parse requests and prepare images."""
_SERVER_ERRORS = ("model_failed", "invalid_answer")
_CLIENT_CLOSED_REQUEST = 499
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
_REFUSALS = {
    400: "invalid or unsupported request", 401: "missing or wrong API key", 403: "another origin, or unknown host name",
    408: "request received too slowly", 413: "request too large", 415: "unsupported media type",
    429: "all slots are in use; see Retry-After", 500: "the model failed",
    503: "not ready, or stopping", 504: "timeout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request, and access control.

    Attributes:
        max_bytes: maximum size of a request.
        timeout: seconds from a request's first byte to its answer.
        hosts: allowed host names, in addition to localhost and IP addresses.
        key: the API key that requests must have; None needs none.
    """

    max_bytes: int = 32 * 2**20
    timeout: float = 60.0
    hosts: tuple[str, ...] = ()
    key: str | None = None


@dataclass(slots=True)
class _Body:
    """The part of a request's body received so far."""

    data: bytearray = field(default_factory=bytearray)
    complete: bool = False


class _Handler:
    """Answers a request: acquires a slot, receives and parses the body, prepares the image, runs the model."""

    def __init__(self, service: BatchingService, limits: Limits) -> None:
        self.service = service
        self.limits = limits
        self.buffered = 0  # bytes of all bodies
        self.workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="semanticface worker")

    async def answer(self, request: Request, parse: Callable[[bytes], tuple[T, Picture]]) -> tuple[T, list[Prediction]]:
        """Return the parsed request and the predictions.

        Args:
            request: its body has not been received yet.
            parse: parses the body; runs in a worker thread.
        """
        body = _Body()
        try:
            async with asyncio.timeout(self.limits.timeout):
                with self.service.acquire_slot() as slot:
                    try:
                        await self._receive(request, body)
                        prepared = self.workers.submit(self._prepare, parse, body)
                        parsed, picture, face = await _while_connected(request, prepared)
                    finally:
                        # Free the memory now: a cancelled task stays in the workers' queue for a while.
                        self.buffered -= len(body.data)
                        body.data.clear()
                    if isinstance(face, Prediction):
                        return parsed, [face]
                    return parsed, await _while_connected(request, slot.submit(face, picture.options))
        except (RefusedError, UnavailableError) as refused:
            if not body.complete:
                await drain(request.receive, self.limits.max_bytes)
            raise refused if isinstance(refused, RefusedError) else _unavailable(refused) from None
        except TimeoutError:
            if not body.complete:
                raise RefusedError(
                    408, "too_slow", "The request was not received in time. Send a smaller one."
                ) from None
            message = f"No answer within {self.limits.timeout:g} s. Send fewer requests at a time."
            raise RefusedError(504, "timeout", message, retry_after=5) from None

    async def _receive(self, request: Request, body: _Body) -> None:
        limit = self.limits.max_bytes
        too_large = RefusedError(413, "too_large", f"The request is larger than {limit / 2**20:g} MiB.")
        content_length = request.headers.get("content-length", "0")
        if not content_length.isdigit() or int(content_length) > limit:
            raise too_large
        while not body.complete:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            body.complete = not message.get("more_body", False)
            if len(body.data) + len(chunk) > limit:
                raise too_large
            if self.buffered + len(chunk) > _MAX_BUFFERED * limit:
                busy = "Too many large requests at a time. Try again later, or send smaller pictures."
                raise RefusedError(429, "queue_full", busy, retry_after=2)
            self.buffered += len(chunk)
            body.data += chunk

    def _prepare(
        self, parse: Callable[[bytes], tuple[T, Picture]], body: _Body
    ) -> tuple[T, Picture, PreparedFace | Prediction]:
        parsed, picture = parse(bytes(body.data))
        return parsed, picture, self.service.prepare(picture.data, picture.crop, picture.name)


async def _while_connected(request: Request, work: Future[T]) -> T:
    """Return the result of some work; cancel it if the client disconnects or the time is up."""
    result = asyncio.wrap_future(work)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((result, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        disconnected.cancel()
        result.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unavailable(error: UnavailableError) -> RefusedError:
    status = {"queue_full": 429, "model_failed": 500}.get(error.code, 503)
    return RefusedError(status, error.code, str(error), retry_after=error.retry_after)


def create_app(service: BatchingService, model: str, limits: Limits | None = None) -> FastAPI:
    """Return the server's application, which closes the service on shutdown.

    Args:
        service: a started service; its model may still be loading.
        model: the model's name for clients.
        limits: of requests; None for the defaults.
    """
    limits = limits or Limits()
    handler = _Handler(service, limits)
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)
        handler.workers.shutdown(cancel_futures=True)

    app = FastAPI(
        title="SemanticFace",
        version=__version__,
        summary="From a picture of a face to 52 ARKit coefficients and an analysis of which muscles moved.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(RequestGuard, hosts=limits.hosts, key=limits.key, max_bytes=limits.max_bytes)],
    )

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        body = error_body(error.status_code, _HTTP_CODES.get(error.status_code), f"{error.detail}. See /openapi.json.")
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(error_body(500, "server_failed", "Internal error. See the server's log."), 500)

    @app.post(
        "/v1/chat/completions",
        summary="Chat completion about one picture, in OpenAI's format",
        response_model=None,
        responses=_responses(openai_api.Completion),
        openapi_extra=_request_body({"application/json": {"schema": _ref("ChatRequest"), "example": _CHAT_EXAMPLE}}),
    )
    async def chat(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await drain(request.receive, limits.max_bytes)
            raise RefusedError(415, "unsupported_media_type", "Content-Type must be application/json.")

        def parse(body: bytes) -> tuple[openai_api.ParsedChat, Picture]:
            parsed = openai_api.parse_chat(body, service.defaults, model, max_answers=service.batch_size)
            return parsed, parsed.picture

        parsed, predictions = await handler.answer(request, parse)
        for each in predictions:
            if each.status != "ok":
                status = 500 if each.status in _SERVER_ERRORS else 400
                raise RefusedError(status, each.status, each.reason, param="messages")
        emotion = parsed.picture.options.emotion
        prompt = load_prompt(service.predictor.prompt.name, emotion=emotion)
        reply = openai_api.complete(
            [(each.text, service.token_ends(each.text)) for each in predictions],
            max_tokens=parsed.max_tokens,
            prompt_tokens=service.prompt_tokens(emotion=emotion),
            model=model,
            created=int(time.time()),
            fingerprint=f"semanticface-{__version__}-{prompt.name}-{prompt.version}-{prompt.sha256[:8]}",
        )
        if parsed.stream:
            events = "".join(openai_api.events(reply, usage=parsed.usage))
            return Response(events, media_type="text/event-stream")
        return JSONResponse(reply.model_dump())

    @app.post(
        "/v1/face",
        summary="Read one picture; the answer is as in `semanticface predict`",
        response_model=None,
        responses=_responses(face_api.FaceReply)
        | {422: {"model": face_api.FaceReply, "description": "no answer for this picture; see status and reason"}},
        openapi_extra=_request_body(
            {kind: {"schema": {"type": "string", "format": "binary"}} for kind in face_api.RAW_TYPES}
            | {
                face_api.FORM_TYPE: {"schema": _FORM},
                "application/json": {"schema": _ref("FaceRequest"), "example": {"picture": "iVBORw0KGgo…"}},
            }
        ),
    )
    async def face(request: Request) -> Response:
        def parse(body: bytes) -> tuple[None, Picture]:
            content_type = request.headers.get("content-type", "")
            return None, face_api.parse_face(body, content_type, dict(request.query_params), service.defaults)

        _, (prediction,) = await handler.answer(request, parse)
        row = prediction.to_dict()
        if prediction.status == "ok":
            return JSONResponse(row)
        status = 500 if prediction.status in _SERVER_ERRORS else 422
        return JSONResponse({**row, **error_body(status, prediction.status, prediction.reason)}, status)

    @app.get("/v1/models", summary="The served model", responses=_refusals(401, 403))
    async def models() -> openai_api.Models:
        return openai_api.Models(data=[openai_api.Model(id=model, created=created)])

    @app.get("/v1/models/{name:path}", summary="The model with a name", responses=_refusals(401, 403, 404))
    async def one_model(name: str) -> openai_api.Model:
        if name != model:
            raise RefusedError(404, "model_not_found", "Unknown model. See /v1/models.")
        return openai_api.Model(id=model, created=created)

    @app.get(
        "/v1/schema",
        summary="The JSON Schema of every answer",
        description="For the server's defaults, or for the mode and emotion in the query.",
        responses=_refusals(400, 401, 403, 503),
    )
    async def schema(request: Request) -> dict[str, Any]:
        if service.status != "ready":
            raise RefusedError(503, service.status, "The model is not ready. See /ready.", retry_after=2)
        options = read_request(Options, dict(request.query_params)).read_options(service.defaults)
        return answer_schema(options.mode, emotion=options.emotion)

    def status_reply(status: int) -> Response:
        body = {"status": service.status, "model": model, "taken": service.slots_taken, "places": service.slots}
        return JSONResponse(body, status, None if status == 200 else {"retry-after": "2"})

    @app.get("/health", summary="Liveness check", responses=_refusals(403, 503))
    async def health() -> Response:
        return status_reply(200 if service.status in ("loading", "ready") else 503)

    @app.get("/ready", summary="Readiness check", responses=_refusals(403, 503))
    async def ready() -> Response:
        return status_reply(200 if service.status == "ready" else 503)

    app.openapi = lambda: _openapi(app, limits.key is not None)  # type: ignore[method-assign]
    return app


# --- /openapi.json ----------------------------------------------------------------------------------------------------

_CHAT_EXAMPLE = {
    "model": "nano",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo…"}}],
        }
    ],
    "response_format": {"type": "json_object"},
}
_FORM = {
    "type": "object",
    "properties": {
        "picture": {"type": "string", "format": "binary"},
        **{name: {"type": "string"} for name in face_api.FaceOptions.model_fields},
    },
    "required": ["picture"],
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _request_body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    descriptions = _REFUSALS | {404: "not found"}
    return {code: {"model": Refusal, "description": descriptions[code]} for code in codes}


def _responses(model: type) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **_refusals(*_REFUSALS)}


def _openapi(app: FastAPI, key: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        models = [(model, "validation") for model in (openai_api.ChatRequest, face_api.FaceRequest)]
        _, extra = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        components = document.setdefault("components", {})
        components["schemas"] = {**components.get("schemas", {}), **extra["$defs"]}
        options = face_api.FaceOptions.model_json_schema()["properties"]
        document["paths"]["/v1/face"]["post"]["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": value} for name, value in options.items()
        ]
        if key:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
