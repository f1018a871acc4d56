"""The page on which choices are made: Gradio on 127.0.0.1, with nothing that leads off the machine.

The page asks three things of the server, ``state``, ``answer`` and ``undo``, and each reply holds all that it shows,
pictures included: no picture is ever a file that a browser could ask for. It goes on to the next question when a choice
is stored, not before, and a reload or a new server finds everything where it was.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, get_args

from semanticface.errors import SemanticFaceError
from semanticface.preference.annotators import consistency
from semanticface.preference.session import Session
from semanticface.preference.types import Verdict

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_NAMES = [HOST, "localhost"]  # by which a browser may address the server: no other site may have itself sent here
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


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
    with tempfile.TemporaryDirectory(prefix="semanticface-annotate-") as cache:
        # Read when Gradio is imported.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": cache,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        import gradio
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        page = Page(session)
        assets = resources.files("semanticface") / "assets" / "annotate"
        html, css, script = ((assets / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
        with gradio.Blocks(analytics_enabled=False, title="Which is nearer?", fill_width=True) as blocks:
            gradio.HTML(html_template=html, js_on_load=script, apply_default_css=False)
            for function in (page.state, page.answer, page.undo):
                gradio.api(function, api_name=function.__name__, queue=False)
        try:
            _, url, _ = blocks.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                max_file_size=1,
                allowed_paths=[],
                theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=css,
                app_kwargs={
                    "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(_Confined)]
                },
            )
        except OSError as error:
            raise SemanticFaceError(f"port {port} of {HOST} is taken ({error}). Give another with --port.") from error
        try:
            ready(url)
            stop.wait()
        finally:
            blocks.close(verbose=False)


def check_installed() -> None:
    """Raise a SemanticFaceError unless Gradio is there."""
    if importlib.util.find_spec("gradio") is None:
        raise SemanticFaceError("annotate needs Gradio, which is not installed. Install it: pip install "
                                "'semanticface[annotate]'")  # fmt: skip


class _Confined:
    """Tells the browser to load and send nothing beyond this server, whatever the page or Gradio may ask for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, confined)


def _data(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
