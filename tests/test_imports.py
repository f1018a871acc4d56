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
    # transformers looks into accelerate where it is installed; the test below hides it.
    assert set(rest) <= {"accelerate"}


def test_the_exports_load_when_they_are_asked_for():
    names = ("numpy", "torch", "numba")
    lines = ("import semanticface", "from semanticface import describe, render", "from semanticface import Predictor")
    first, *_, last = loaded("\n".join(lines), names)
    assert first == [] and "torch" in last
    assert {"Prediction", "Predictor", "describe", "load_faces", "render"} <= set(dir(semanticface))
    assert callable(semanticface.render) and callable(semanticface.describe)


def test_commands_that_read_faces_need_no_training_packages(tmp_path):
    """The packages of the extra ``train`` are hidden, as where only ``pip install semanticface`` ran."""
    (tmp_path / "answer.jsonl").write_text('{"answer": "no"}\n')
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_text("{}")
    lines = f"""
predict {ROOT}/examples/astronaut.jpg --out a.jsonl --report a.html
describe a.jsonl
convert a.jsonl --out S_1_Ann.csv
convert a.jsonl --out a.glb
show a.jsonl --out a.png
stream S_1_Ann.csv --to 127.0.0.1:9
parse answer.jsonl
predict {ROOT}/examples/astronaut.jpg --model adapter
calibrate nano faces
"""
    program = f"""
import sys
sys.modules.update(dict.fromkeys(("accelerate", "bitsandbytes", "datasets", "peft", "tensorboard", "trl")))
from semanticface.cli.main import main
print([main(line.split()) for line in {lines.strip().splitlines()!r}])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 0, 0, 1, 2, 2]", done.stderr
    needs = "Install it: pip install 'semanticface[train]'"
    assert f"semanticface: adapter is an adapter, which needs peft. {needs}" in done.stderr
    assert f"semanticface: calibrate needs datasets, which is not installed. {needs}" in done.stderr
