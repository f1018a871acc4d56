"""The page of ``semanticface annotate``: a local Gradio page on which annotators choose between two renders.

The page calls ``state``, ``answer`` and ``undo``. Each reply has everything to display, images included, so that no
image is a file that a browser could request. The page moves on once a choice is stored; a reload or a restarted server
resumes at the same question.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any, get_args

from semanticface import assets
from semanticface.errors import SemanticFaceError
from semanticface.preference.annotator_agreement import consistency
from semanticface.preference.session import Session
from semanticface.preference.types import Verdict
from semanticface.serving.pages import local_page


class Page:
    """The functions that the page calls; every reply is the whole state in JSON values.

    Args:
        session: of the annotator.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def state(self) -> dict[str, Any]:
        """Return the current state."""
        session, progress = self.session, self.session.progress()
        current = session.current
        state: dict[str, Any] = {
            "annotator": session.annotator,
            "round": session.round,
            "done": progress.done,
            "left": progress.left,
            "can_undo": progress.can_undo,
            "error": "",
            "question": None,
            "consistency": [],
        }
        if current is not None:
            state["question"] = {"id": current.question.id, "area": current.question.region}
            state["question"] |= {part: _data_uri(getattr(current, part)) for part in ("reference", "a", "b")}
        else:
            choices = session.store.choices(annotator=session.annotator, model=session.model, round=session.round)
            repeats, mirrored = consistency(choices)
            state["consistency"] = [
                ["same answer when repeated", repeats.hits, repeats.of],
                ["same answer when mirrored", mirrored.hits, mirrored.of],
            ]
        return state

    def answer(self, question: str, verdict: str) -> dict[str, Any]:
        """Store a choice, if its question is still the current one, and return the new state."""
        if verdict not in get_args(Verdict):
            return self.state() | {"error": f"{verdict!r} is not a valid answer. Reload the page."}
        return self._try(lambda: self.session.answer(question, verdict))  # type: ignore[arg-type]

    def undo(self) -> dict[str, Any]:
        """Undo the last choice and return the new state."""
        return self._try(self.session.undo)

    def _try(self, action: Callable[[], object]) -> dict[str, Any]:
        try:
            action()
        except SemanticFaceError as error:
            return self.state() | {"error": str(error)}
        return self.state()


def serve(session: Session, *, port: int, ready: Callable[[str], None], stop: threading.Event) -> None:
    """Serve the page until ``stop`` is set.

    Args:
        session: of the annotator.
        port: on 127.0.0.1.
        ready: called with the URL once the page can be opened.
        stop: ends the server.

    Raises:
        SemanticFaceError: Gradio is not installed, or the port is in use.
    """
    check_installed()
    with local_page.private_gradio() as gradio:
        page = Page(session)
        folder = assets.path("annotate")
        html, css, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
        with gradio.Blocks(analytics_enabled=False, title="Which is closer?", fill_width=True) as blocks:
            gradio.HTML(html_template=html, js_on_load=script, apply_default_css=False)
            for function in (page.state, page.answer, page.undo):
                gradio.api(function, api_name=function.__name__, queue=False)
        local_page.show(blocks, port=port, ready=ready, stop=stop, css=css)


def check_installed() -> None:
    """Raise a SemanticFaceError unless Gradio is installed."""
    local_page.check_installed("annotate")


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
