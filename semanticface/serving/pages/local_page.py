"""Gradio pages on 127.0.0.1, for ``annotate`` and ``demo``, without any connection to other machines.

Requests of other sites' pages are refused, as by ``semanticface serve``. A content security policy restricts the
browser to this server; analytics, sharing and Gradio's uploads are off, and its cache is deleted at the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticface.errors import SemanticFaceError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_DRAINED = 2**20  # bytes read of a refused request
# blob: is for the user's own files, and for textures that three.js unpacks.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "manifest-src 'self'; worker-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


def check_installed(command: str) -> None:
    """Raise a SemanticFaceError unless Gradio is installed; ``command`` is also the name of its extra."""
    if importlib.util.find_spec("gradio") is None:
        raise SemanticFaceError(
            f"{command} needs Gradio, which is not installed. Install it: pip install 'semanticface[{command}]'"
        )


@contextlib.contextmanager
def private_gradio() -> Iterator[Any]:
    """Import Gradio without telemetry and with a temporary cache; yields the module, then deletes the cache."""
    cache = _cache()
    cache.mkdir(mode=0o700, exist_ok=True)
    # Gradio reads these on import and later.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        import gradio

        yield gradio
    finally:
        shutil.rmtree(cache, ignore_errors=True)


@lru_cache(maxsize=1)
def _cache() -> Path:
    # One per process: Gradio keeps the first path it reads.
    return Path(tempfile.mkdtemp(prefix="semanticface-page-"))


def launch_options() -> dict[str, Any]:
    """Return arguments of ``launch`` for a bare page: no external fonts, no links, no history."""
    import gradio

    return {
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "max_file_size": 1,
        "allowed_paths": [],
        "theme": gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    }


def show(
    blocks: Any, *, port: int, ready: Callable[[str], None], stop: threading.Event, css: str | None = None
) -> None:
    """Serve a page until ``stop`` is set.

    Args:
        blocks: a ``gradio.Blocks``.
        port: on 127.0.0.1.
        ready: called with the URL once the page can be opened.
        stop: ends the server.
        css: of the whole page.
    """
    from starlette.middleware import Middleware

    from semanticface.serving.middleware import RequestGuard

    try:
        _, url, _ = blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            css=css,
            app_kwargs={
                "middleware": [
                    Middleware(RequestGuard, hosts=(), key=None, max_bytes=_DRAINED),
                    Middleware(_SecurityHeaders),
                ]
            },
            **launch_options(),
        )
    except OSError as error:
        raise SemanticFaceError(f"port {port} on {HOST} is in use. Choose another with --port.") from error
    try:
        ready(url)
        stop.wait()
    finally:
        blocks.close(verbose=False)


class _SecurityHeaders:
    """Adds the content security policy, which restricts the browser to this server."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)
