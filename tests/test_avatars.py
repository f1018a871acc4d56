"""docs/avatars.md: every command in it does what the page says."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from glb_reader import load
from test_retarget import write_avatar

from semanticface import arkit, cli, live_link, live_link_udp, tables
from semanticface.answer import format_answer
from semanticface.live_link import LiveLinkRow

PAGE = Path(__file__).resolve().parents[1] / "docs" / "avatars.md"


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
    tables.write("faces.jsonl", [tables.Answered(f"{n}.png", coefficients=row) for n, row in enumerate(rows)])
    said = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": format_answer(rows[0], None)}]
    Path("swift.jsonl").write_text(json.dumps({"messages": said, "images": ["a.jpg"]}) + "\n")
    write_avatar(Path("robot.vrm"), [name for name in arkit.NAMES if name not in ("cheekPuff", "tongueOut")])
    return tmp_path


def test_every_command_of_the_page(desk, capsys, monkeypatch):
    sent = []

    def send(due, host, port):
        for _, data in due:
            sent.append((host, port, data))
            yield len(sent)

    monkeypatch.setattr(live_link_udp, "send", send)
    words = commands()
    assert len(words) > 6 and all(line[0] == "semanticface" for line in words)
    for line in words:
        assert cli.main(line[1:]) == 0, line
    assert Path("Scene1_2_Ann.csv").read_bytes() == Path("Scene1_1_Ann.csv").read_bytes()
    found = [row.label for row in tables.read_coefficients("Scene2_1_Ann.csv")]
    assert found[:3] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:00:04.800"]
    assert {(host, port) for host, port, _ in sent} == {("127.0.0.1", 11111)} and len(sent) == 12
    assert b"Ann" in sent[0][2] and b"Robot" in sent[-1][2]
    for name in ("head.glb", "robot-take.vrm"):
        document, _, _ = load(Path(name))
        assert document["animations"]
    (example,) = re.findall(r"```\n(semanticface: .*)\n```", PAGE.read_text())
    assert example in capsys.readouterr().err
