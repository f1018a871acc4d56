"""Zero-shot questions to a model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, our own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from semanticface.errors import PictureError
from semanticface.evaluation.zero_shot.questions import MAX_TOKENS, Question, Reply, apply_crop
from semanticface.llm.client import ChatClient, ChatReply, ChatRequest, image_part
from semanticface.vision.crop import Box


@dataclass(frozen=True)
class ServerModel:
    """Queries a server about pictures, several at a time.

    Pictures are sent as PNG without metadata, none larger than ``side``.

    Attributes:
        client: of the server.
        side: maximum longer side of a picture, in pixels.
        free: query without a schema, even if the server supports it.
        max_tokens: limit of a reply; None means ``MAX_TOKENS``.
        on_first: called with the first reply; *optional*.
    """

    client: ChatClient
    side: int = 768
    free: bool = False
    max_tokens: int | None = None
    on_first: Callable[[ChatReply], None] | None = None

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.client.server.model

    def record(self, question: Question) -> dict[str, Any]:
        """Return the settings that determine the replies, besides the question; not the URL, which may change."""
        max_tokens = self.max_tokens or MAX_TOKENS[question.semantics]
        return {"model": self.name, "side": self.side, "free": self.free, "max_tokens": max_tokens}

    def answer(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield replies as they arrive; the first request is sent alone, to probe the server's features and speed."""
        before = [self._message(turn.role, turn.text, turn.picture) for turn in question.turns(_BLANK)[:-1]]
        boxes: dict[str, Box | None] = {}
        failed: list[Reply] = []

        def requests() -> Iterator[tuple[str, ChatRequest]]:
            for name, picture in pictures:
                try:
                    image, boxes[name] = apply_crop(picture, question.crop)
                except PictureError as error:
                    failed.append(Reply(name, status=error.code, reason=str(error)))
                    continue
                last = question.turns(image)[-1]
                yield name, self._request(question, [*before, self._message(last.role, last.text, last.picture)])

        def reply(name: str, answer: ChatReply) -> Reply:
            status = _NO_FACE if answer.code == _NO_FACE else answer.status
            return Reply(
                name, answer.text, status, answer.reason, boxes[name], answer.seconds, answer.tokens_in,
                answer.tokens_out, answer.attempts,
            )  # fmt: skip

        source = requests()
        head = next(source, None)
        if head is not None:
            name, request = head
            chat_reply = self.client.complete(request)
            if self.on_first is not None:
                self.on_first(chat_reply)
            yield reply(name, chat_reply)
        for name, chat_reply in self.client.complete_many(source):
            yield reply(name, chat_reply)
            yield from _drained(failed)
        yield from _drained(failed)

    def _request(self, question: Question, messages: list[dict[str, Any]]) -> ChatRequest:
        max_tokens = self.max_tokens or MAX_TOKENS[question.semantics]
        return ChatRequest(messages, max_tokens, None if self.free else question.schema())

    def _message(self, role: str, text: str, picture: Image.Image | None) -> dict[str, Any]:
        if picture is None:
            return {"role": role, "content": text}
        small = picture.copy()
        small.thumbnail((self.side, self.side))
        return {"role": role, "content": [image_part(small, format="PNG"), {"type": "text", "text": text}]}


_NO_FACE = "no_face"  # error code of `semanticface serve`, which detects faces itself
_BLANK = Image.new("RGB", (1, 1))


def _drained(replies: list[Reply]) -> list[Reply]:
    out = list(replies)
    replies.clear()
    return out
