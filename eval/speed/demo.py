"""How long the demo takes: its handler in this process, and a picture's whole way through the page in a browser.

    python eval/speed/demo.py

Pictures are the demo's own examples, at the size at which they ship and enlarged to 12 million pixels. *handler* is one
call of what the page asks for, base64 and JSON included; *page* is the time from handing the file to the page until its
words, bars and head are up to date, in headless Chromium with WebGL drawn in software. Medians; ``--quick`` repeats
less. ``--browser`` names another Chromium; without one, *page* is left out.

## For machines

The last line has, in milliseconds, ``handler_ms_example``, ``handler_cpu_ms_example``, ``page_ms_example``, and the
same for ``12_MP``.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from PIL import Image

from semanticface.cli.scripts import ScriptParser
from semanticface.inference.predictor import Predictor
from semanticface.serving.pages import local_page
from semanticface.serving.pages.demo import ASSETS, EXAMPLES, Demo, build
from semanticface.utils.files import atomic_open
from semanticface.utils.progress import tqdm

LARGE = (4000, 3000)  # what a phone's camera takes


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="nano, a folder or a hub id (default: %(default)s)")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="program (default: chromium)")
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/demo.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    rounds = 3 if options.quick else 15
    stills = [(ASSETS / "examples" / file).read_bytes() for file, _ in EXAMPLES if file.endswith(".jpg")]
    groups = {"example": stills, "12 MP": [enlarged(data) for data in stills[:2]]}
    demo = Demo(Predictor.from_pretrained(options.model), options.model)
    figures = {}
    for name, pictures in groups.items():
        sent = [base64.b64encode(data).decode() for data in pictures]
        ask(demo, sent[0])  # a model's first answer is its slowest
        wall, used = timed(lambda data: ask(demo, data), sent * rounds, f"handler, {name}")
        figures[f"handler_ms_{name}"], figures[f"handler_cpu_ms_{name}"] = wall, used
    if options.browser:
        for name, milliseconds in through_the_page(options.model, options.browser, groups, rounds).items():
            figures[f"page_ms_{name}"] = milliseconds
    for name, value in figures.items():
        print(f"{name:<26} {value:8.0f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({name.replace(" ", "_"): round(value, 1) for name, value in figures.items()})
    with atomic_open(options.out) as file:
        file.write(line + "\n")
    print(line)


def enlarged(data: bytes) -> bytes:
    """A picture as a JPEG of ``LARGE``."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).resize(LARGE).save(out, "JPEG", quality=90)
    return out.getvalue()


def ask(demo: Demo, data: str) -> None:
    """Have a picture read."""
    said = demo.read("picture.jpg", data, False, True, "")
    if said["status"] != "ok":
        raise SystemExit(said["reason"])


def timed(work: Callable[[str], None], items: list[str], label: str) -> tuple[float, float]:
    """Median milliseconds an item, on the clock and of this process."""
    wall, used = [], []
    for item in tqdm(items, label, leave=False):
        began, spent = time.perf_counter(), time.process_time()
        work(item)
        wall.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.process_time() - spent))
    return median(wall), median(used)


def through_the_page(model: str, program: str, groups: dict[str, list[bytes]], rounds: int) -> dict[str, float]:
    """Median milliseconds by group, from the file's arrival at the page to a head at rest."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind((local_page.HOST, 0))
        port = probe.getsockname()[1]
    stop, there = threading.Event(), threading.Event()

    def serve() -> None:
        with local_page.private_gradio():
            local_page.show(build(model), port=port, ready=lambda _: there.set(), stop=stop)

    thread = threading.Thread(target=serve)
    thread.start()
    there.wait()
    out = {}
    try:
        with sync_playwright() as driver:
            flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            browser = driver.chromium.launch(executable_path=program, args=flags)
            tab = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
            tab.goto(f"http://{local_page.HOST}:{port}/")
            tab.wait_for_selector("#sf[data-ready=all]")
            count = 0
            for name, pictures in groups.items():
                times = []
                for data in tqdm(pictures * rounds, f"page, {name}", leave=False):
                    began = time.perf_counter()
                    tab.set_input_files(".sf-file", {"name": "p.jpg", "mimeType": "image/jpeg", "buffer": data})
                    count += 1
                    tab.wait_for_selector(f"#sf[data-count='{count}'][data-state=answer]")
                    tab.wait_for_function("document.querySelector('.sf-head').dataset.moving === 'false'")
                    times.append(1000 * (time.perf_counter() - began))
                out[name] = median(times)
            browser.close()
    finally:
        stop.set()
        thread.join()
    return out


if __name__ == "__main__":
    main()
