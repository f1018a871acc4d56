"""Pages that commands of the project show in the browser: Gradio on 127.0.0.1, with nothing that leads off the machine.

``annotate`` and ``demo`` are shown this way. The browser is told to load nothing from elsewhere, and to send nothing
there; analytics, sharing and Gradio's own uploads are off, and its cache is deleted at the end.
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
_NAMES = [HOST, "localhost"]  # by which a browser may address the server: no other site may have itself sent here
# blob: is what a page makes of the user's own files, and three.js of the textures inside a model.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "manifest-src 'self'; worker-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


def check_installed(command: str) -> None:
    """Raise a SemanticFaceError unless Gradio is there; ``command`` is also the name of the extra that brings it."""
    if importlib.util.find_spec("gradio") is None:
        raise SemanticFaceError(
            f"{command} needs Gradio, which is not installed. Install it: pip install 'semanticface[{command}]'"
        )


@contextlib.contextmanager
def private_gradio() -> Iterator[Any]:
    """Import Gradio so that it tells nobody, with a cache that is gone at the end of the block; yields the module."""
    cache = _cache()
    cache.mkdir(mode=0o700, exist_ok=True)
    # Read when Gradio is imported, and by parts of it later.
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
    # One for the whole process: Gradio remembers the one it saw first, and would make it anew.
    return Path(tempfile.mkdtemp(prefix="semanticface-page-"))


def launch_options() -> dict[str, Any]:
    """Arguments of ``launch`` that keep Gradio's page bare: no font from elsewhere, no links, nothing recorded."""
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
    """Show a page until ``stop`` is set.

    Args:
        blocks: a ``gradio.Blocks``.
        port: of 127.0.0.1.
        ready: is given the address when the page can be opened.
        stop: ends it.
        css: of the whole page; *optional*.

    Raises:
        SemanticFaceError: the port is taken.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    try:
        _, url, _ = blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            css=css,
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(_Confined)]},
            **launch_options(),
        )
    except OSError as error:
        raise SemanticFaceError(f"port {port} of {HOST} is taken. Give another with --port.") from error
    try:
        ready(url)
        stop.wait()
    finally:
        blocks.close(verbose=False)


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
