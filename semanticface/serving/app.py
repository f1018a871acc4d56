"""The server: OpenAI's chat completions and ``/v1/face`` around one ``serving.Service``; see docs/serving.md.

Each request takes its place before its body is read, so that what waits, and what memory it may use, is bounded. What
takes a processor's time (JSON, base64, pictures, looking for faces) happens in a few threads beside the model's. When
a client leaves, or has waited too long, what was to be done for it is not.
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

_UPLOADS = 16
"""Bodies of the largest size that are held at a time, all requests together."""
_READERS = 2
"""Threads that make pictures ready."""
_OUR_FAULT = ("model_failed", "invalid_answer")
_CLIENT_LEFT = 499
_STRANGE = {404: "not_found", 405: "method_not_allowed"}
_REFUSALS = {
    400: "cannot be honoured", 401: "without the key", 403: "by another site, or under another name",
    408: "came too slowly", 413: "too large", 415: "of an unknown kind",
    429: "all places are taken: Retry-After says when to try again", 500: "the model failed",
    503: "not ready, or stopping", 504: "took too long",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost, and who may make one.

    Attributes:
        body: largest request in bytes.
        seconds: from a request's first byte to its answer.
        names: host names by which the server may be addressed, beside localhost and addresses in digits.
        key: that requests must carry; None lets everybody in.
    """

    body: int = 32 * 2**20
    seconds: float = 60.0
    names: tuple[str, ...] = ()
    key: str | None = None


@dataclass(slots=True)
class _Body:
    """What has come of a request's body, and whether that is all."""

    data: bytearray = field(default_factory=bytearray)
    arrived: bool = False


class _Desk:
    """Gets a request its answer: a place, its body, its picture made ready, and what the model says."""

    def __init__(self, service: BatchingService, limits: Limits) -> None:
        self.service = service
        self.limits = limits
        self.held = 0  # bytes of all bodies
        self.readers = ThreadPoolExecutor(_READERS, thread_name_prefix="semanticface reader")

    async def answer(self, request: Request, read: Callable[[bytes], tuple[T, Picture]]) -> tuple[T, list[Prediction]]:
        """Return what a request asked, and the predictions.

        Args:
            request: whose body is still to be read.
            read: returns what a body asks; runs in another thread.

        Raises:
            RefusedError: there is no answer.
            ClientDisconnect: nobody waits for one.
        """
        body = _Body()
        try:
            async with asyncio.timeout(self.limits.seconds):
                with self.service.place() as place:
                    try:
                        await self._receive(request, body)
                        understood = self.readers.submit(self._understand, read, body)
                        asked, picture, style = await _while_connected(request, understood)
                    finally:
                        # Here, since what is cancelled still lies in the threads' queue for a while.
                        self.held -= len(body.data)
                        body.data.clear()
                    if isinstance(style, Prediction):
                        return asked, [style]
                    return asked, await _while_connected(request, place.submit(style, picture.ask))
        except (RefusedError, UnavailableError) as refused:
            if not body.arrived:
                await drain(request.receive, self.limits.body)
            raise refused if isinstance(refused, RefusedError) else _unavailable(refused) from None
        except TimeoutError:
            if not body.arrived:
                raise RefusedError(408, "too_slow", "The request did not arrive in time. Send less.") from None
            message = f"There was no answer within {self.limits.seconds:g} s. Send fewer requests at a time."
            raise RefusedError(504, "timeout", message, retry_after=5) from None

    async def _receive(self, request: Request, body: _Body) -> None:
        most = self.limits.body
        too_large = RefusedError(413, "too_large", f"The request is larger than {most / 2**20:g} MiB.")
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > most:
            raise too_large
        while not body.arrived:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            body.arrived = not message.get("more_body", False)
            if len(body.data) + len(chunk) > most:
                raise too_large
            if self.held + len(chunk) > _UPLOADS * most:
                busy = "Too much is being sent at a time. Try again a little later, or send smaller pictures."
                raise RefusedError(429, "queue_full", busy, retry_after=2)
            self.held += len(chunk)
            body.data += chunk

    def _understand(
        self, read: Callable[[bytes], tuple[T, Picture]], body: _Body
    ) -> tuple[T, Picture, PreparedFace | Prediction]:
        asked, picture = read(bytes(body.data))
        return asked, picture, self.service.make_ready(picture.data, picture.crop, picture.name)


async def _while_connected(request: Request, work: Future[T]) -> T:
    """Return what comes of some work, which is cancelled if its client leaves or its time is over."""
    result = asyncio.wrap_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unavailable(error: UnavailableError) -> RefusedError:
    status = {"queue_full": 429, "model_failed": 500}.get(error.code, 503)
    return RefusedError(status, error.code, str(error), retry_after=error.retry_after)


def create_app(service: BatchingService, model: str, limits: Limits | None = None) -> FastAPI:
    """Return the server's application; it closes the service when it ends.

    Args:
        service: started, though its model may still be loading.
        model: its name for clients.
        limits: of requests; None takes the usual ones.
    """
    limits = limits or Limits()
    desk = _Desk(service, limits)
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)
        desk.readers.shutdown(cancel_futures=True)

    app = FastAPI(
        title="SemanticFace",
        version=__version__,
        summary="A picture of a face in, 52 ARKit coefficients and an account of which muscles moved out.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(RequestGuard, names=limits.names, key=limits.key, most_bytes=limits.body)],
    )

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_LEFT)

    @app.exception_handler(HTTPException)
    async def strange(_: Request, error: HTTPException) -> Response:
        body = error_body(
            error.status_code, _STRANGE.get(error.status_code), f"{error.detail}. /openapi.json lists what there is."
        )
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(error_body(500, "server_failed", "The server failed; its terminal says why."), 500)

    @app.post(
        "/v1/chat/completions",
        summary="Ask about one picture, in OpenAI's form",
        response_model=None,
        responses=_responses(openai_api.Completion),
        openapi_extra=_takes({"application/json": {"schema": _ref("ChatRequest"), "example": _CHAT_EXAMPLE}}),
    )
    async def chat(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await drain(request.receive, limits.body)
            raise RefusedError(415, "unsupported_media_type", "Content-Type must be application/json.")

        def read(body: bytes) -> tuple[openai_api.Question, Picture]:
            question = openai_api.read_chat(body, service.usual, model, most_answers=service.batch_size)
            return question, question.picture

        question, predictions = await desk.answer(request, read)
        for each in predictions:
            if each.status != "ok":
                status = 500 if each.status in _OUR_FAULT else 400
                raise RefusedError(status, each.status, each.reason, param="messages")
        emotion = question.picture.ask.emotion
        prompt = load_prompt(service.predictor.prompt.name, emotion=emotion)
        reply = openai_api.complete(
            [(each.text, service.token_ends(each.text)) for each in predictions],
            most_tokens=question.most_tokens,
            prompt_tokens=service.prompt_tokens(emotion=emotion),
            model=model,
            created=int(time.time()),
            fingerprint=f"semanticface-{__version__}-{prompt.name}-{prompt.version}-{prompt.sha256[:8]}",
        )
        if question.stream:
            events = "".join(openai_api.events(reply, usage=question.usage))
            return Response(events, media_type="text/event-stream")
        return JSONResponse(reply.model_dump())

    @app.post(
        "/v1/face",
        summary="Read one picture; answers as `semanticface predict` does",
        response_model=None,
        responses=_responses(face_api.FaceReply)
        | {422: {"model": face_api.FaceReply, "description": "no answer for this picture; status and reason say why"}},
        openapi_extra=_takes(
            {kind: {"schema": {"type": "string", "format": "binary"}} for kind in face_api.RAW_TYPES}
            | {
                face_api.FORM_TYPE: {"schema": _FORM},
                "application/json": {"schema": _ref("FaceRequest"), "example": {"picture": "iVBORw0KGgo…"}},
            }
        ),
    )
    async def face(request: Request) -> Response:
        def read(body: bytes) -> tuple[None, Picture]:
            kind = request.headers.get("content-type", "")
            return None, face_api.read_face(body, kind, dict(request.query_params), service.usual)

        _, (prediction,) = await desk.answer(request, read)
        row = prediction.to_dict()
        if prediction.status == "ok":
            return JSONResponse(row)
        status = 500 if prediction.status in _OUR_FAULT else 422
        return JSONResponse({**row, **error_body(status, prediction.status, prediction.reason)}, status)

    @app.get("/v1/models", summary="The model that is served", responses=_refusals(401, 403))
    async def models() -> openai_api.Models:
        return openai_api.Models(data=[openai_api.Model(id=model, created=created)])

    @app.get("/v1/models/{name:path}", summary="The model of a name", responses=_refusals(401, 403, 404))
    async def one_model(name: str) -> openai_api.Model:
        if name != model:
            raise RefusedError(404, "model_not_found", "There is no model of this name here. See /v1/models.")
        return openai_api.Model(id=model, created=created)

    @app.get(
        "/v1/schema",
        summary="The JSON Schema that every answer satisfies",
        description="As the server was started, or of the mode and emotion named in the query.",
        responses=_refusals(400, 401, 403, 503),
    )
    async def schema(request: Request) -> dict[str, Any]:
        if service.status != "ready":
            raise RefusedError(503, service.status, "The model is not ready. Ask /ready.", retry_after=2)
        ask = read_request(Options, dict(request.query_params)).ask(service.usual)
        return answer_schema(ask.mode, emotion=ask.emotion)

    def told(status: int) -> Response:
        body = {"status": service.status, "model": model, "taken": service.taken, "places": service.slots}
        return JSONResponse(body, status, None if status == 200 else {"retry-after": "2"})

    @app.get("/health", summary="Whether the server lives", responses=_refusals(403, 503))
    async def health() -> Response:
        return told(200 if service.status in ("loading", "ready") else 503)

    @app.get("/ready", summary="Whether pictures are read", responses=_refusals(403, 503))
    async def ready() -> Response:
        return told(200 if service.status == "ready" else 503)

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


def _takes(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    named = _REFUSALS | {404: "not here"}
    return {code: {"model": Refusal, "description": named[code]} for code in codes}


def _responses(model: type) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **_refusals(*_REFUSALS)}


def _openapi(app: FastAPI, key: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        wanted = [(model, "validation") for model in (openai_api.ChatRequest, face_api.FaceRequest)]
        _, extra = models_json_schema(wanted, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        parts = document.setdefault("components", {})
        parts["schemas"] = {**parts.get("schemas", {}), **extra["$defs"]}
        options = face_api.FaceOptions.model_json_schema()["properties"]
        document["paths"]["/v1/face"]["post"]["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": value} for name, value in options.items()
        ]
        if key:
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
