"""Zero-shot questions to a model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, our own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from semanticface.errors import PictureError
from semanticface.evaluation.zero_shot.questions import LONGEST, Question, Reply, look_at
from semanticface.llm.client import ChatClient, ChatReply, ChatRequest, image_part
from semanticface.vision.crop import Box


@dataclass(frozen=True)
class ServerModel:
    """Asks a server about pictures, several at a time.

    Pictures travel as PNG data without metadata, none larger than ``side``.

    Attributes:
        client: of the server.
        side: the longer side of a picture that is sent, in pixels at most.
        free: ask without a schema, whatever the server can.
        max_tokens: where replies are cut; None takes ``LONGEST``.
        first: told the first reply; None tells nobody.
    """

    client: ChatClient
    side: int = 768
    free: bool = False
    max_tokens: int | None = None
    first: Callable[[ChatReply], None] | None = None

    @property
    def name(self) -> str:
        """The model's name there."""
        return self.client.server.model

    def record(self, question: Question) -> dict[str, Any]:
        """Return what else decides the replies; not where the server is, which may move."""
        longest = self.max_tokens or LONGEST[question.semantics]
        return {"model": self.name, "side": self.side, "free": self.free, "max_tokens": longest}

    def read(self, question: Question, pictures: Iterable[tuple[str, Image.Image]]) -> Generator[Reply]:
        """Yield replies as they come; the first request goes alone, to learn what the server can and how fast it is.

        Raises:
            ServerError: every request would fail; what was there by then has been yielded.
        """
        before = [self._message(turn.role, turn.text, turn.picture) for turn in question.turns(_BLANK)[:-1]]
        boxes: dict[str, Box | None] = {}
        missed: list[Reply] = []

        def requests() -> Iterator[tuple[str, ChatRequest]]:
            for name, picture in pictures:
                try:
                    shown, boxes[name] = look_at(picture, question.crop)
                except PictureError as error:
                    missed.append(Reply(name, status=error.code, reason=str(error)))
                    continue
                last = question.turns(shown)[-1]
                yield name, self._request(question, [*before, self._message(last.role, last.text, last.picture)])

        def reply(name: str, said: ChatReply) -> Reply:
            status = _NO_FACE if said.code == _NO_FACE else said.status
            return Reply(
                name, said.text, status, said.reason, boxes[name], said.seconds, said.tokens_in, said.tokens_out,
                said.attempts,
            )  # fmt: skip

        source = requests()
        head = next(source, None)
        if head is not None:
            name, request = head
            said = self.client.complete(request)
            if self.first is not None:
                self.first(said)
            yield reply(name, said)
        for name, said in self.client.complete_many(source):
            yield reply(name, said)
            yield from _taken(missed)
        yield from _taken(missed)

    def _request(self, question: Question, messages: list[dict[str, Any]]) -> ChatRequest:
        longest = self.max_tokens or LONGEST[question.semantics]
        return ChatRequest(messages, longest, None if self.free else question.schema())

    def _message(self, role: str, text: str, picture: Image.Image | None) -> dict[str, Any]:
        if picture is None:
            return {"role": role, "content": text}
        small = picture.copy()
        small.thumbnail((self.side, self.side))
        return {"role": role, "content": [image_part(small, format="PNG"), {"type": "text", "text": text}]}


_NO_FACE = "no_face"  # what `semanticface serve`, which looks for faces itself, refuses a picture by
_BLANK = Image.new("RGB", (1, 1))


def _taken(replies: list[Reply]) -> list[Reply]:
    out = list(replies)
    replies.clear()
    return out
