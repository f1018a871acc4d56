"""The page on which choices are made: Gradio on 127.0.0.1, with nothing that leads off the machine.

The page asks three things of the server, ``state``, ``answer`` and ``undo``, and each reply holds all that it shows,
pictures included: no picture is ever a file that a browser could ask for. It goes on to the next question when a choice
is stored, not before, and a reload or a new server finds everything where it was.
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
    """What the page may ask; every reply is the whole state as plain values for JSON.

    Args:
        session: of the annotator.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def state(self) -> dict[str, Any]:
        """Return what is to be shown now."""
        session, progress = self.session, self.session.progress()
        shown = session.current
        told: dict[str, Any] = {
            "annotator": session.annotator,
            "round": session.round,
            "done": progress.done,
            "left": progress.left,
            "can_undo": progress.can_undo,
            "error": "",
            "question": None,
            "consistency": [],
        }
        if shown is not None:
            told["question"] = {"id": shown.question.id, "area": shown.question.area}
            told["question"] |= {part: _data(getattr(shown, part)) for part in ("reference", "a", "b")}
        else:
            mine = session.store.choices(annotator=session.annotator, model=session.model, round=session.round)
            repeats, mirrored = consistency(mine)
            told["consistency"] = [
                ["same answer when asked again", repeats.hits, repeats.of],
                ["same answer when mirrored", mirrored.hits, mirrored.of],
            ]
        return told

    def answer(self, question: str, verdict: str) -> dict[str, Any]:
        """Store a choice, if the question is still the current one, and return what comes next."""
        if verdict not in get_args(Verdict):
            return self.state() | {"error": f"{verdict!r} is no answer. Reload the page."}
        return self._after(lambda: self.session.answer(question, verdict))  # type: ignore[arg-type]

    def undo(self) -> dict[str, Any]:
        """Take the last choice back and return what is to be shown now."""
        return self._after(self.session.undo)

    def _after(self, work: Callable[[], object]) -> dict[str, Any]:
        try:
            work()
        except SemanticFaceError as error:
            return self.state() | {"error": str(error)}
        return self.state()


def serve(session: Session, *, port: int, ready: Callable[[str], None], stop: threading.Event) -> None:
    """Show the page until ``stop`` is set.

    Args:
        session: of the annotator.
        port: of 127.0.0.1.
        ready: is given the address when the page can be opened.
        stop: ends it.

    Raises:
        SemanticFaceError: Gradio is not installed, or the port is taken.
    """
    check_installed()
    with local_page.private_gradio() as gradio:
        page = Page(session)
        folder = assets.path("annotate")
        html, css, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
        with gradio.Blocks(analytics_enabled=False, title="Which is nearer?", fill_width=True) as blocks:
            gradio.HTML(html_template=html, js_on_load=script, apply_default_css=False)
            for function in (page.state, page.answer, page.undo):
                gradio.api(function, api_name=function.__name__, queue=False)
        local_page.show(blocks, port=port, ready=ready, stop=stop, css=css)


def check_installed() -> None:
    """Raise a SemanticFaceError unless Gradio is there."""
    local_page.check_installed("annotate")


def _data(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
