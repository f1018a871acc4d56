"""docs/avatars.md: every command in it does what the page says."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import live_link, live_link_udp, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.inference.predictor import Predictor
from semanticface.rendering import render
from semanticface.semantics.answer import format_answer
from semanticface.vision import webcam
from semanticface.vision.video_reader import open_take
from semanticface.vision.webcam import Device
from tests.formats.test_live_link_udp import decode
from tests.formats.test_retarget import write_avatar
from tests.helpers.clips import PixelPredictor, bars, write_clip
from tests.helpers.glb_reader import load
from tests.helpers.live_takes import count_sixty

PAGE = Path(__file__).resolve().parents[2] / "docs" / "avatars.md"


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(5).uniform(0, 1, (6, 52))
    codes = [f"13:13:04:{31.652 + 2 * frame:06.3f}" for frame in range(6)]
    live_link.write("Scene1_1_Ann.csv", map(LiveLinkRow, codes, rows, np.full((6, 9), 0.1)))
    tables.write("faces.jsonl", [tables.RowResult(f"{n}.png", coefficients=row) for n, row in enumerate(rows)])
    said = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": format_answer(rows[0], None)}]
    Path("swift.jsonl").write_text(json.dumps({"messages": said, "images": ["a.jpg"]}) + "\n")
    drawn = [render(row * 0.5, subject=3, size=96).image for row in rows]
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(f"{number}.png")
    write_clip(Path("clip.mp4"), drawn)
    count_sixty(write_clip(Path("Scene1_1_Ann.mov"), bars(9), timecode="13:13:04:15"))
    write_avatar(Path("robot.vrm"), [name for name in arkit.NAMES if name not in ("cheekPuff", "tongueOut")])
    return tmp_path


def test_every_command_of_the_page(desk, capsys, monkeypatch):
    sent = []

    def send(due, host, port):
        for _, data in due:
            sent.append((host, port, data))
            yield len(sent)

    monkeypatch.setattr(live_link_udp, "send", send)
    monkeypatch.setattr(Predictor, "from_pretrained", lambda name, **_: PixelPredictor())
    monkeypatch.setattr(webcam, "find_camera", lambda word, rate: Device(word, "movie=clip.mp4", "lavfi"))
    words = commands()
    assert len(words) > 6 and all(line[0] == "semanticface" for line in words)
    for line in words:
        assert main(line[1:]) == 0, line
    assert Path("Scene1_2_Ann.csv").read_bytes() == Path("Scene1_1_Ann.csv").read_bytes()
    found = [row.label for row in tables.read_coefficients("Scene2_1_Ann.csv")]
    assert found[:3] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:00:04.800"]
    assert {(host, port) for host, port, _ in sent} == {("127.0.0.1", 11111)}
    names = Counter(decode(data)["name"] for _, _, data in sent)
    assert names.pop("Bea") >= 1 and names == {"Ann": 6, "Robot": 6, "clip": 6}
    assert [len(list(open_take(path).frames())) for path in ("clip-shown.mp4", "check.mp4")] == [6, 9]
    assert Image.open("sheet.png").size == (4 * 458 + 10, 2 * 270 + 10)
    for name in ("head.glb", "robot-take.vrm"):
        document, _, _ = load(Path(name))
        assert document["animations"]
    (example,) = re.findall(r"```\n(semanticface: .*)\n```", PAGE.read_text())
    assert example in capsys.readouterr().err
