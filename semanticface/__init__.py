"""A face picture in, 52 ARKit blendshape coefficients and a readable account of which muscles moved out."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

# Before any Hugging Face library or Gradio reads them: nothing about a face or a run is sent anywhere.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# At import bitsandbytes, which peft imports, asks for a package that would fetch code from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

# What most programs want, imported when it is first asked for: `import semanticface` itself loads nothing heavy.
# Type checkers read __init__.pyi.
_EXPORTS = {
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "describe": "semantics.analysis",
    "load_faces": "data.faces",
    "render": "rendering",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
