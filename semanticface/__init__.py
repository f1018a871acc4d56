"""Predict 52 ARKit blendshape coefficients and a readable analysis of muscle movements from a picture of a face."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

# Disable telemetry before any Hugging Face library or Gradio reads these variables.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# bitsandbytes, imported by peft, recommends at import a package that fetches code from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

# The main API, imported on first access: `import semanticface` itself loads nothing heavy.
# Type checkers read __init__.pyi.
_EXPORTS = {
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "coefficients_from_text": "semantics.text_pose",
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
