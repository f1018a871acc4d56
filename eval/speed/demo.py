"""Latency of the demo: its handler in this process, and a picture's way through the page in a browser.

    python eval/speed/demo.py

Pictures are the demo's examples, as shipped and enlarged to 12 megapixels. *handler* is one call of the page's request,
base64 and JSON included; *page* is the time from giving the file to the page until its analysis, bars and head are up
to date, in headless Chromium with software WebGL. Medians; ``--quick`` repeats less. ``--browser`` names another
Chromium; without one, *page* is skipped.

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

LARGE = (4000, 3000)  # a phone's camera


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
        encoded = [base64.b64encode(data).decode() for data in pictures]
        ask(demo, encoded[0])  # a model's first answer is its slowest
        wall, used = timed(lambda data: ask(demo, data), encoded * rounds, f"handler, {name}")
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
    """Return a picture as a JPEG of size ``LARGE``."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).resize(LARGE).save(out, "JPEG", quality=90)
    return out.getvalue()


def ask(demo: Demo, data: str) -> None:
    """Request one prediction."""
    reply = demo.read("picture.jpg", data, False, True, "")
    if reply["status"] != "ok":
        raise SystemExit(reply["reason"])


def timed(work: Callable[[str], None], items: list[str], label: str) -> tuple[float, float]:
    """Return median milliseconds an item, wall-clock and of this process."""
    wall, used = [], []
    for item in tqdm(items, label, leave=False):
        start, cpu = time.perf_counter(), time.process_time()
        work(item)
        wall.append(1000 * (time.perf_counter() - start))
        used.append(1000 * (time.process_time() - cpu))
    return median(wall), median(used)


def through_the_page(model: str, program: str, groups: dict[str, list[bytes]], rounds: int) -> dict[str, float]:
    """Return median milliseconds by group, from the file's arrival at the page to a head at rest."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind((local_page.HOST, 0))
        port = probe.getsockname()[1]
    stop, ready = threading.Event(), threading.Event()

    def serve() -> None:
        with local_page.private_gradio():
            local_page.show(build(model), port=port, ready=lambda _: ready.set(), stop=stop)

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
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
                    start = time.perf_counter()
                    tab.set_input_files(".sf-file", {"name": "p.jpg", "mimeType": "image/jpeg", "buffer": data})
                    count += 1
                    tab.wait_for_selector(f"#sf[data-count='{count}'][data-state=answer]")
                    tab.wait_for_function("document.querySelector('.sf-head').dataset.moving === 'false'")
                    times.append(1000 * (time.perf_counter() - start))
                out[name] = median(times)
            browser.close()
    finally:
        stop.set()
        thread.join()
    return out


if __name__ == "__main__":
    main()
