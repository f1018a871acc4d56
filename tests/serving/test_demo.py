"""``semanticface demo``: the functions of its page, and the page itself in a real browser."""

import base64
import io
import json
import re
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import recording, tables
from semanticface.formats.rotations import head_rotations
from semanticface.inference.predictor import Predictor
from semanticface.rendering import render
from semanticface.serving.pages import demo as demo_app
from semanticface.serving.pages import local_page
from semanticface.serving.pages.demo import ASSETS, EXAMPLES, Demo
from semanticface.vision.image_io import load_picture
from tests.cli.test_annotate import _free_port
from tests.formats.test_retarget import write_avatar
from tests.helpers.clips import bars, write_clip, write_sound
from tests.helpers.glb_reader import animated, load
from tests.helpers.local_pages import check_only_the_page_is_served
from tests.helpers.pages import commands

PERSON = 5_000_003
WINK = arkit.vector({"eyeBlinkLeft": 1, "mouthSmileLeft": 0.9, "mouthSmileRight": 0.9})
SURPRISE = arkit.vector(
    {"jawOpen": 0.9, "browInnerUp": 1, "browOuterUpLeft": 1, "browOuterUpRight": 1, "eyeWideLeft": 1, "eyeWideRight": 1}
)


def draw(values, style="photo", size=256):
    return render(values, style=style, subject=PERSON, size=size).image


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def demo():
    return Demo(Predictor.from_pretrained("nano"), "nano")


def read(demo, name, data, *, whole=False, emotion=True):
    return demo.read(name, base64.b64encode(data).decode(), whole, emotion, "job")


def rows_of(answer, tmp_path):
    """Parse the JSON and the Live Link CSV with the project's own readers."""
    (tmp_path / "a.jsonl").write_text(answer["jsonl"])
    (tmp_path / "a.csv").write_text(answer["csv"])
    return list(recording.read(tmp_path / "a.jsonl")), list(tables.read_coefficients(tmp_path / "a.csv"))


def animation_of(demo, answer, tmp_path):
    path = tmp_path / "a.glb"
    path.write_bytes(base64.b64decode(demo.animation(answer["name"], answer["jsonl"])["data"]))
    document, arrays, _ = load(path)
    (animation,) = document["animations"]
    sampler = animation["samplers"][0]
    assert document["meshes"][0]["extras"]["targetNames"] == list(arkit.NAMES)
    return animation["name"], arrays[sampler["input"]].ravel(), arrays[sampler["output"]].reshape(-1, 52)


def test_the_reply_to_a_picture_has_everything_to_display_and_save(demo, tmp_path):
    answer = read(demo, "C:\\photos\\wink.png", png(draw(WINK)))
    assert (answer["status"], answer["kind"], answer["name"]) == ("ok", "picture", "wink.png")
    json.dumps(answer)
    (row,), (recorded,) = rows_of(answer, tmp_path)
    assert row.status == "ok" and row.image == "wink.png" and row.analysis.emotional_implication
    assert row.values[arkit.INDEX["eyeBlinkLeft"]] > 0.7 > 0.3 > row.values[arkit.INDEX["eyeBlinkRight"]]
    np.testing.assert_allclose(recorded.coefficients, row.values, atol=1e-6)
    assert recorded.live_link is not None and not recorded.live_link.pose.any()
    name, times, values = animation_of(demo, answer, tmp_path)
    assert name == "wink" and times[0] == 0 and not values[0].any()
    np.testing.assert_allclose(values[-1], row.values, atol=1e-6)
    checked = answer["checked"]
    assert 0 < checked["holds"] <= checked["claims"] and bool(checked["wrong"]) == (
        checked["holds"] < checked["claims"]
    )


def test_the_page_and_the_command_can_omit_emotion(demo):
    picture = png(draw(SURPRISE, "toon"))
    assert "emotional_implication" in read(demo, "a.png", picture)["jsonl"]
    assert "emotional_implication" not in read(demo, "a.png", picture, emotion=False)["jsonl"]
    silent = Demo(demo._predictors[True], "nano", emotion=False)
    assert silent.setup()["emotion"] is False and demo.setup()["emotion"] is True
    assert "emotional_implication" not in read(silent, "a.png", picture)["jsonl"]


def test_the_animated_head_turns_by_the_pose(demo, tmp_path):
    assert demo.setup()["rotations"] == list(arkit.POSE_NAMES)
    pose = np.array([0.4, 0.2, -0.3, 0, 0, 0, 0, 0, 0])
    row = tables.RowResult("a.png", coefficients=np.zeros(52), pose=pose)
    (tmp_path / "a.glb").write_bytes(base64.b64decode(demo.animation("a.png", json.dumps(row.to_dict()))["data"]))
    document, arrays, _ = load(tmp_path / "a.glb")
    (head,) = [n for n, node in enumerate(document["nodes"]) if node["name"] == "Head"]
    _, turns = animated(document, arrays, head, "rotation")
    assert np.allclose(turns, [[0, 0, 0, 1], head_rotations(pose), head_rotations(pose)], atol=1e-6)


def test_the_labels_of_the_actions_are_unique():
    labels = {each["name"]: each["words"] for each in map(demo_app._action, arkit.ACTIONS)}
    assert [labels[name] for name in ("eyeBlinkLeft", "eyeLookInRight", "jawLeft", "mouthRight", "cheekPuff")] == [
        "blink", "look in", "sideways", "sideways", "puff",
    ]  # fmt: skip
    for region in arkit.REGIONS:
        actions = [demo_app._action(action) for action in arkit.ACTIONS if action.region == region]
        pairs = [(each["words"], each["side"]) for each in actions]
        assert len(set(pairs)) == len(pairs), region


def test_the_reply_to_a_clip_has_every_frame_and_its_time(demo, tmp_path, monkeypatch):
    steps = np.linspace(0, 1, 6)[:, None] * SURPRISE
    path = write_clip(tmp_path / "in.mp4", [draw(values.astype(np.float32), "toon", 160) for values in steps], rate=25)
    answer = read(demo, "surprise.mp4", path.read_bytes())
    assert answer["kind"] == "clip" and answer["note"] == "" and str(tmp_path) not in answer["jsonl"]
    rows, recorded = rows_of(answer, tmp_path)
    assert [row.status for row in rows] == ["ok"] * 6 and rows[2].image == "surprise.mp4, frame 3"
    assert [float(row.time) for row in rows] == pytest.approx(np.arange(6) / 25)
    # Timecodes at 60 per second, which Unreal Engine supports, for a clip of 25.
    assert [row.label for row in recorded[:3]] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:00:04.800"]
    jaw = [row.values[arkit.INDEX["jawOpen"]] for row in rows]
    assert jaw[-1] > 0.5 > jaw[0]
    name, times, values = animation_of(demo, answer, tmp_path)
    assert name == "surprise" and times == pytest.approx(np.arange(6) / 25)
    np.testing.assert_allclose(values, [row.values for row in rows], atol=1e-6)
    assert demo.progress("job") == [0, None]
    monkeypatch.setattr(demo_app, "MAX_FRAMES", 2)
    cut = read(demo, "surprise.mp4", path.read_bytes())
    assert cut["note"] == "Only the first 2 of 6 frames were read." and cut["jsonl"].count("\n") == 2


def test_progress_and_pictures_during_a_clip(demo, tmp_path, monkeypatch):
    path = write_clip(tmp_path / "in.mp4", [draw(SURPRISE, "toon", 96)] * 2)
    seen = []

    def reading(path, name, predictor, on_frame):
        on_frame(7, 20)
        seen.append(demo.progress("job"))
        other = threading.Thread(
            target=lambda: seen.append(read(demo, "a.png", png(draw(WINK)))["status"]), daemon=True
        )
        other.start()
        other.join(60)
        return demo_app.ClipReading("", "", 20, 0, "")

    monkeypatch.setattr(demo_app, "read_clip", reading)
    assert read(demo, "in.mp4", path.read_bytes())["status"] == "ok"
    assert seen == [[7, 20], "ok"] and demo.progress("job") == [0, None]


def _bad(tmp_path):
    whole = png(draw(SURPRISE, size=96))
    huge = io.BytesIO()
    Image.new("1", (30_000, 3_000)).save(huge, "PNG")
    gif = io.BytesIO()
    Image.new("L", (64, 64)).save(gif, "GIF")
    faceless = write_clip(tmp_path / "faceless.mp4", bars(3)).read_bytes()
    return {
        "notes.txt": (b"a shopping list", "not a picture"),
        "notes.mp4": (b"a shopping list", "not a readable video"),
        "empty.jpg": (b"", "empty"),
        "empty.mp4": (b"", "empty"),
        "cut.png": (whole[: len(whole) // 2], "damaged or truncated"),
        "cut.mp4": (faceless[: len(faceless) // 3], "truncated"),
        "huge.png": (huge.getvalue(), "the limit is 64 million"),
        "moving.gif": (gif.getvalue(), "a GIF"),
        "sound.m4a": (write_sound(tmp_path / "s.m4a").read_bytes(), "no video stream"),
        "nobody.png": (png(np.full((96, 96, 3), 120, np.uint8)), "no face found"),
        "nobody.mp4": (faceless, "no face"),
    }


def test_unreadable_files_get_one_sentence(demo, tmp_path):
    for name, (data, part) in _bad(tmp_path).items():
        reply = read(demo, name, data)
        assert reply.keys() == {"status", "reason"} and reply["status"] != "ok", name
        assert reply["reason"].startswith(f"{name}: ") and part in reply["reason"], reply
        assert not re.search("/|\n|upload|box", reply["reason"]), reply
    for data in ("not base64!", "é"):
        assert "upload was incomplete" in demo.read("a.png", data, False, True, "")["reason"]
    assert (
        "larger than 64 MiB" in demo.read("a.png", "A" * (demo_app.MAX_BYTES * 4 // 3 + 8), False, True, "")["reason"]
    )
    assert demo.read("../../etc/pass\nwd\x00.png", "", False, True, "")["reason"].startswith("passwd.png: ")
    assert "reason" in demo.animation("a.png", "{}\n")


def test_the_whole_picture_can_be_used_as_the_face(demo):
    nobody = png(np.full((96, 96, 3), 120, np.uint8))
    assert read(demo, "a.png", nobody)["status"] == "no_face"
    assert json.loads(read(demo, "a.png", nobody, whole=True)["jsonl"])["box"] == [0, 0, 96, 96]


def test_examples_and_scripts_exist_and_import_only_local_files():
    for file, _ in EXAMPLES:
        assert (ASSETS / "examples" / file).stat().st_size < 60_000
        if not file.endswith(".webm"):
            load_picture(ASSETS / "examples" / file)
    assert "MIT" in (ASSETS / "three" / "LICENSE").read_text()
    for script in ASSETS.rglob("*.js"):
        for source in re.findall(r"""(?:\bfrom|\bimport)\s*["']([^"']+)["']""", script.read_text()):
            if script.parent.name != "three" or source.startswith("."):
                assert (script.parent / source).is_file(), (script, source)


@pytest.mark.parametrize("file", [file for file, _ in EXAMPLES])
def test_every_example_has_an_answer(demo, file, monkeypatch):
    monkeypatch.setattr(demo_app, "MAX_FRAMES", 4)
    reply = read(demo, file, (ASSETS / "examples" / file).read_bytes())
    assert reply["status"] == "ok" and "frames have no answer" not in reply["note"]


def test_the_command_prints_the_address_and_passes_its_options(monkeypatch, capsys):
    built, opened = [], []
    monkeypatch.setattr(demo_app, "build", lambda *args, **kwargs: built.append((args, kwargs)))
    monkeypatch.setattr(local_page, "show", lambda blocks, *, port, ready, stop: ready(f"http://127.0.0.1:{port}/"))
    monkeypatch.setattr("webbrowser.open", opened.append)
    before = signal.getsignal(signal.SIGINT)
    assert main(["demo"]) == 0
    assert main(["demo", "--no-browser", "--port", "8123", "--no-emotion", "--model", "m", "--device", "cpu"]) == 0
    assert built == [(("nano",), {"emotion": True, "device": None}), (("m",), {"emotion": False, "device": "cpu"})]
    assert opened == ["http://127.0.0.1:7860/"] and signal.getsignal(signal.SIGINT) == before
    assert "Open http://127.0.0.1:8123/ in your browser" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["demo", "--port", "80"])
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "semanticface demo --port 8000 --no-browser" in capsys.readouterr().out
    monkeypatch.setattr(local_page.importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert "pip install 'semanticface[demo]'" in capsys.readouterr().err


def test_every_command_of_the_documentation(monkeypatch, tmp_path):
    shown = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_app, "build", lambda *args, **kwargs: None)
    monkeypatch.setattr(local_page, "show", lambda blocks, *, port, ready, stop: shown.append(port))
    tables.write(
        "clip.jsonl", [tables.RowResult(f"{n}", coefficients=values) for n, values in enumerate((WINK, SURPRISE))]
    )
    write_avatar(Path("robot.vrm"), list(arkit.NAMES))
    lines = commands("demo.md")
    assert len(lines) > 4
    for line in lines:
        assert line[0] == "semanticface" and main(line[1:]) == 0, line
    assert shown == [7860, 7860, 7860, 8000]
    document, _, _ = load(Path("robot-clip.vrm"))
    assert document["animations"]


@pytest.fixture
def address():
    """Serve the page in a thread, as the command does; yields the URL."""
    stop, found, problems = threading.Event(), threading.Event(), []
    urls = []

    def ready(url):
        urls.append(url)
        found.set()

    def serve():
        try:
            with local_page.private_gradio():
                local_page.show(demo_app.build(), port=_free_port(), ready=ready, stop=stop)
        except BaseException as error:
            problems.append(error)
            found.set()

    thread = threading.Thread(target=serve)
    thread.start()
    found.wait()
    assert not problems, problems
    yield urls[0]
    stop.set()
    thread.join()
    assert not local_page._cache().exists()


@pytest.fixture
def tab(tmp_path):
    """A browser with software WebGL and a fake webcam: a face that winks with its left eye."""
    webcam = write_clip(tmp_path / "webcam.mjpeg", [draw(WINK, size=320)] * 2, codec="mjpeg", rate=10)
    flags = (
        "no-sandbox", "use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", f"use-file-for-fake-video-capture={webcam}",
    )  # fmt: skip
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.fail("no browser found. Install one: apt-get update && apt-get install -y chromium")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=[f"--{flag}" for flag in flags])
        page = chromium.new_page(viewport={"width": 1000, "height": 760}, color_scheme="light", reduced_motion="reduce")
        page.set_default_timeout(60_000)
        yield page
        chromium.close()


def _done(tab, number):
    """Wait for the n-th answer."""
    tab.wait_for_selector(f"#sf[data-count='{number}']:not([data-state=reading])")


def _bar(tab, name):
    return float(tab.get_attribute(f"[data-action={name}]", "aria-valuenow"))


def _head(tab):
    """Return a screenshot of the head once it no longer moves."""
    tab.wait_for_function("document.querySelector('.sf-head').dataset.moving === 'false'")
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(tab.locator(".sf-head").screenshot())).convert("RGB")).astype(float)


def _moved(one, other):
    """Return the difference of two screenshots of the head in the left and right half."""
    difference = np.abs(one - other).mean(2)
    half = difference.shape[1] // 2
    return difference[:, :half].sum(), difference[:, half:].sum()


def _upload(tab, name, data, kind):
    tab.set_input_files(".sf-file", {"name": name, "mimeType": kind, "buffer": data})


def _saved(tab, button, path):
    with tab.expect_download() as waiting:
        tab.click(f"[data-do={button}]")
    waiting.value.save_as(path)
    return waiting.value.suggested_filename


def test_the_page(address, tab, tmp_path):
    requests, errors = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("#sf[data-ready=all]")
    rest = _head(tab)
    assert rest.std() > 20 and tab.locator(".sf-nohead").is_hidden()
    assert tab.locator("[role=meter]").count() == 52 + 9
    unnamed = "[...document.querySelectorAll('#sf :is(button, input, canvas, video)')].filter((each) => !each.hidden"
    unnamed += " && !(each.ariaLabel || each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML)"
    assert tab.evaluate(unnamed) == []

    # A photograph: analysis, bars and head show that the subject's left eye is closed.
    _upload(tab, "wink.png", png(draw(WINK)), "image/png")
    _done(tab, 1)
    assert _bar(tab, "eyeBlinkLeft") > 0.7 > 0.3 > _bar(tab, "eyeBlinkRight")
    assert tab.evaluate("document.querySelector('.sf-picture').naturalWidth") == 256
    assert tab.locator(".sf-regions dt").all_inner_texts() == [*arkit.REGIONS, "symmetry"]
    eyes = tab.locator(".sf-regions div", has_text=re.compile("^eyes")).inner_text()
    assert "left" in eyes and tab.locator(".sf-suggests").is_visible()
    likely = tab.locator("[data-action=mouthSmileLeft] i + i").bounding_box()
    assert likely["width"] > 0 and "likely" in tab.get_attribute("[data-action=mouthSmileLeft]", "aria-valuetext")
    wink = _head(tab)
    right, left = _moved(rest, wink)
    assert left > 1.1 * right > 0  # the subject's left is in the right half of the picture

    # Downloads, read back by the project.
    assert _saved(tab, "jsonl", tmp_path / "wink.jsonl") == "wink.jsonl"
    assert _saved(tab, "csv", tmp_path / "wink.csv") == "SemanticFace_1_wink.csv"
    assert _saved(tab, "glb", tmp_path / "wink.glb") == "wink.glb"
    (row,), (recorded,) = recording.read(tmp_path / "wink.jsonl"), tables.read_coefficients(tmp_path / "wink.csv")
    assert row.values[arkit.INDEX["eyeBlinkLeft"]] == pytest.approx(_bar(tab, "eyeBlinkLeft"), abs=0.006)
    np.testing.assert_allclose(recorded.coefficients, row.values, atol=1e-6)
    document, _, _ = load(tmp_path / "wink.glb")
    assert len(document["animations"]) == 1

    # The head turns by dragging and by key, and back to the front.
    tab.locator(".sf-head").scroll_into_view_if_needed()
    place = tab.locator(".sf-head").bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 90, y, steps=3)
    tab.mouse.up()
    turned = _head(tab)
    assert sum(_moved(wink, turned)) > 5 * sum(_moved(rest, wink)) / 4
    tab.focus(".sf-head")
    tab.keyboard.press("ArrowRight")
    assert sum(_moved(turned, _head(tab))) > 0
    tab.keyboard.press("Home")
    assert sum(_moved(wink, _head(tab))) < 0.05 * sum(_moved(wink, turned))

    # A dropped cartoon, without the emotional implication.
    tab.uncheck(".sf-emotion input")
    assert tab.locator(".sf-suggests").is_hidden()
    _done(tab, 2)  # read again, without it
    dropped = """(data) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "toon.png", { type: "image/png" }));
        document.querySelector(".sf-in").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }"""
    tab.evaluate(dropped, base64.b64encode(png(draw(SURPRISE, "toon"))).decode())
    _done(tab, 3)
    assert _bar(tab, "jawOpen") > 0.5 and _bar(tab, "eyeBlinkLeft") < 0.3
    assert tab.locator(".sf-suggests").is_hidden() and tab.locator(".sf-headline").inner_text() != "Nothing read"
    assert sum(_moved(wink, _head(tab))) > 0

    # A clip: head, bars and analysis follow it.
    tab.check(".sf-emotion input")
    _done(tab, 4)
    steps = np.concatenate([np.zeros((8, 52)), np.tile(SURPRISE, (8, 1))]).astype(np.float32)
    clip = write_clip(tmp_path / "clip.webm", [draw(values, "toon", 160) for values in steps], codec="libvpx", rate=8)
    _upload(tab, "clip.webm", clip.read_bytes(), "video/webm")
    _done(tab, 5)
    tab.evaluate("document.querySelector('.sf-clip').pause()")
    shown = {}
    for second, number in ((0.2, 2), (1.6, 13)):
        tab.evaluate("(second) => { document.querySelector('.sf-clip').currentTime = second; }", second)
        tab.wait_for_selector(f"#sf[data-frame='{number}']")
        shown[second] = _bar(tab, "jawOpen"), _head(tab), tab.locator(".sf-box").bounding_box()
    assert shown[0.2][0] < 0.3 < 0.5 < shown[1.6][0] and sum(_moved(shown[0.2][1], shown[1.6][1])) > 0
    assert shown[1.6][2]["width"] > 20
    _saved(tab, "csv", tmp_path / "clip.csv")
    assert len(list(tables.read_coefficients(tmp_path / "clip.csv"))) == 16

    # Unreadable files: one sentence, and the previous answer is cleared.
    for number, (name, data, kind) in enumerate(
        [
            ("notes.txt", b"a list", "text/plain"),
            ("empty.mp4", b"", "video/mp4"),
            ("cut.png", png(draw(WINK))[:999], "image/png"),
        ]
    ):
        _upload(tab, name, data, kind)
        _done(tab, 6 + number)
        assert tab.locator(".sf-alert").inner_text().startswith(f"{name}: ")
        assert tab.locator("[data-do=whole]").is_hidden() and tab.locator(".sf-downloads").is_hidden()
        assert tab.locator(".sf-headline").inner_text() == "Nothing read" and _bar(tab, "jawOpen") == 0
    _upload(tab, "wall.png", png(np.full((96, 96, 3), 120, np.uint8)), "image/png")
    _done(tab, 9)
    tab.click("[data-do=whole]")
    _done(tab, 10)
    assert tab.locator(".sf-alert").is_hidden() and tab.locator(".sf-downloads").is_visible()
    # Starting the webcam also clears the previous answer.
    tab.click("[data-do=camera]")
    tab.wait_for_selector("#sf[data-mirror=true]")
    assert tab.locator(".sf-downloads").is_hidden() and tab.locator(".sf-headline").inner_text() == "Nothing read"
    tab.click("[data-do=stop]")
    tab.evaluate("Object.defineProperty(File.prototype, 'size', { get: () => 812 * 2 ** 20 })")
    _upload(tab, "video.mp4", b"x", "video/mp4")
    tab.wait_for_selector(".sf-alert:not([hidden])")
    assert "video.mp4: 812 MiB, this page takes up to 64" in tab.locator(".sf-alert").inner_text()

    # The webcam is displayed mirrored, but not read mirrored.
    tab.reload()
    tab.wait_for_selector("#sf[data-ready=all]")
    tab.click("[data-do=camera]")
    tab.wait_for_selector("#sf[data-mirror=true]")
    assert tab.locator(".sf-sides").first.inner_text().split("\n")[0] == "your left"
    assert tab.evaluate("getComputedStyle(document.querySelector('.sf-camera')).transform").startswith("matrix(-1")
    tab.wait_for_function("document.querySelector('.sf-camera').videoWidth > 0")
    mirrored = _head(tab)
    tab.click("[data-do=live]")
    tab.wait_for_function("document.querySelector('#sf').dataset.count >= 2")
    assert _bar(tab, "eyeBlinkLeft") > 0.7 > 0.3 > _bar(tab, "eyeBlinkRight")
    left, right = _moved(mirrored, _head(tab))
    assert left > 1.1 * right > 0
    tab.click("[data-do=frame]")
    tab.wait_for_selector("#sf[data-mirror=false][data-state=answer] .sf-downloads:not([hidden])")
    assert _bar(tab, "eyeBlinkLeft") > 0.7 > 0.3 > _bar(tab, "eyeBlinkRight")
    assert tab.locator(".sf-sides").first.inner_text().split("\n")[0] == "subject’s right"

    # An example on a phone, in dark mode.
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.click("[data-do=theme]")
    tab.click("[data-file='drawn-1.jpg']")
    tab.wait_for_selector("[data-file='drawn-1.jpg'][aria-pressed=true]")
    tab.wait_for_function(
        "document.querySelector('.sf-picture').src && document.querySelector('.sf-picture').naturalWidth === 384"
    )
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390

    assert errors == []
    local = address.rstrip("/")
    assert [url for url in requests if not url.removeprefix("blob:").startswith((local, "data:"))] == []
    check_only_the_page_is_served(address, Path(__file__))
