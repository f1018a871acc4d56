"""Which modules load what: light tools do not import torch, and prediction does not import the renderer."""

import json
import subprocess
import sys

import semanticface
from tests.helpers.scripts import ROOT

LIGHT = (
    "arkit",
    "cli.main",
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


def loaded(code: str, names: tuple[str, ...]) -> list[list[str]]:
    """Run lines of code in a new process; return which of some modules are loaded after each line."""
    program = f"""
import json, sys
for line in {code.splitlines()!r}:
    exec(line)
    print(json.dumps([name for name in {names!r} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_light_modules_load_without_torch():
    found = loaded(
        "\n".join(f"import semanticface.{module}" for module in LIGHT), ("torch", "transformers", "datasets")
    )
    assert dict(zip(LIGHT, found, strict=True)) == {module: [] for module in LIGHT}


def test_reading_a_face_loads_neither_renderer_nor_training():
    heavy = ("numba", "skia", "peft", "bitsandbytes", "datasets", "trl", "accelerate")
    ours = ("semanticface.rendering", "semanticface.training", "semanticface.data", "semanticface.evaluation")
    picture = str(ROOT / "examples" / "astronaut.jpg")
    code = f"from semanticface import Predictor; Predictor.from_pretrained('nano')([{picture!r}])"
    (rest,) = loaded(code, (*heavy, *ours))
    # transformers asks accelerate for the placement of weights.
    assert set(rest) <= {"accelerate"}


def test_the_exports_load_when_they_are_asked_for():
    names = ("numpy", "torch", "numba")
    lines = ("import semanticface", "from semanticface import describe, render", "from semanticface import Predictor")
    first, *_, last = loaded("\n".join(lines), names)
    assert first == [] and "torch" in last
    assert {"Prediction", "Predictor", "describe", "load_faces", "render"} <= set(dir(semanticface))
    assert callable(semanticface.render) and callable(semanticface.describe)
