"""The parts a light tool needs must not pull in torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "arkit",
    "semantics",
    "answer",
    "prompts",
    "metrics",
    "intervals",
    "tables",
    "picture",
    "face",
    "live_link",
    "smooth",
    "timecode",
    "recording",
    "convert",
    "live_link_udp",
    "chat_client",
    "stage1_run",
    "describe_set",
    "gltf_head",
    "retarget",
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
