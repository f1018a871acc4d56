"""``semanticface stream``: a recording goes out whole, under its subject's name, to where it was told."""

import socket

import numpy as np
import pytest
from test_live_link_udp import decode

from semanticface import arkit, cli, live_link, live_link_udp
from semanticface.live_link import LiveLinkRow


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(5)
        yield there


@pytest.fixture
def take(tmp_path):
    rows = np.random.default_rng(2).uniform(0, 1, (5, 52)).round(6)
    codes = [f"10:00:00:{frame:06.3f}" for frame in (40, 40.5, 40.9, 41, 42)]
    live_link.write(tmp_path / "Scene1_2_Ann.csv", map(LiveLinkRow, codes, rows, np.zeros((5, 9))))
    return tmp_path / "Scene1_2_Ann.csv", rows


def stream(path, listener, *words):
    return cli.main(["stream", str(path), "--to", f"127.0.0.1:{listener.getsockname()[1]}", *words])


def test_a_take_arrives(take, listener, capsys):
    path, rows = take
    assert stream(path, listener) == 0
    got = [decode(listener.recv(4096)) for _ in rows]
    assert {one["name"] for one in got} == {"Ann"} and {one["rate"] for one in got} == {(60, 1)}
    assert [one["frame"] for one in got] == [10 * 3600 * 60 + frame for frame in (40, 40, 40, 41, 42)]
    found = [[one["values"][arkit.PASCAL_CASE[name]] for name in arkit.NAMES] for one in got]
    assert np.allclose(found, rows, atol=1e-6)
    assert "5 frames sent, 0 rows left out" in capsys.readouterr().err


def test_bad_rows_are_named_and_left_out(take, listener, capsys):
    path, _ = take
    text = path.read_text().splitlines()
    text[2] = text[2].replace(",61,", ",52,")
    path.write_text("\n".join(text))
    assert stream(path, listener, "--name", "Bob") == 1
    assert [decode(listener.recv(4096))["name"] for _ in range(4)] == ["Bob"] * 4
    assert "line 3, column 2" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code"), [(["--loop"], 0), ([], 130)])
def test_ctrl_c_ends_it(take, listener, capsys, monkeypatch, words, code):
    def interrupted(due, host, port):
        for number, _ in enumerate(due, start=1):
            yield number
            if number == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(live_link_udp, "send", interrupted)
    assert stream(take[0], listener, *words) == code
    assert "3 frames sent" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:0", ":11111", "host:port", "host:99999"])
def test_addresses_that_are_none(take, address, capsys):
    with pytest.raises(SystemExit):
        cli.main(["stream", str(take[0]), "--to", address])
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_spellings_of_an_address(take, monkeypatch):
    asked = []

    def note(due, host, port):
        asked.append((host, port))
        return iter(())

    monkeypatch.setattr(live_link_udp, "send", note)
    for words in ([], ["--to", "studio.local"], ["--to", "[::1]:5000"], ["--to", "[::1]"]):
        assert cli.main(["stream", str(take[0]), *words]) == 0
    assert asked == [("127.0.0.1", 11111), ("studio.local", 11111), ("::1", 5000), ("::1", 11111)]
