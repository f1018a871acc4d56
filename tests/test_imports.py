"""The parts a light tool needs must not pull in torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "arkit",
    "semantics.analysis",
    "semantics.answer",
    "prompts",
    "evaluation.metrics",
    "inference.intervals",
    "formats.tables",
    "vision.image_io",
    "rendering",
    "formats.live_link",
    "utils.one_euro",
    "vision.timecode",
    "formats.recording",
    "formats.convert",
    "formats.live_link_udp",
    "llm.client",
    "llm.analysis_writer",
    "data.describe",
    "formats.gltf_head",
    "formats.retarget",
)


@pytest.mark.parametrize("module", LIGHT)
def test_imports_without_torch(module):
    code = (
        f"import sys, semanticface.{module}; "
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
