"""Benchmark of `semanticface serve` on loopback against the Predictor itself, with up to 200 concurrent requests.

    python eval/speed/serve.py                        # about four minutes on two idle cores
    python eval/speed/serve.py --quick                # under a minute
    OMP_NUM_THREADS=1 python eval/speed/serve.py      # on a busy machine
    python eval/speed/serve.py --model outputs/my-adapter

The server runs in its own process, started by the command, and answers `POST /v1/chat/completions` about distinct
rendered faces as base64 PNG. The client shares the machine's cores with it. `numbers` and `full` send square crops of
128 pixels, `found` portraits of 256 in which the server detects the face (mode numbers). Each is measured at a
concurrency of 1, 16 and 200. The Predictor reads the same files in this process in batches of 16; it and the server
alternate, round by round, so that other load affects both, and `ratio` is the median over rounds of the server's rate
at 16 (at 200) to the Predictor's. Latencies are from a request's first byte to its reply's last, pooled over rounds.

Every reply is compared with the Predictor's answer for the same picture, read alone: `same` counts equal texts. A text
may differ by 0.01 in a number close to the middle of two hundredths, because a batch sums in another order (`largest`
is the maximum difference). `mixed` counts replies with a larger difference, `lost` requests without an answer.

`beyond` sends 200 concurrent requests to a server with 32 slots: how many are answered, and how many refused with 429
and Retry-After. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from PIL import Image

from semanticface.cli.scripts import ScriptParser
from semanticface.errors import AnswerError, SemanticFaceError
from semanticface.inference.predictor import Predictor
from semanticface.recipe import versions
from semanticface.rendering import STYLES, render
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

FIRST_SUBJECT = 9_500_000  # training sets count their people from 0
AT_ONCE = (1, 16, 200)
SLOTS = 32
TOLERANCE = 0.0101
"""Maximum difference from the Predictor's number for the picture alone: a hundredth, plus float32 rounding."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request."""

    name: str
    mode: Literal["full", "numbers"]
    crop: Literal["auto", "none"]
    framing: Literal["crop", "portrait"]
    size: int
    pictures: int


@dataclass(slots=True)
class Tally:
    """The results of one workload at one concurrency."""

    at_once: int
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    asked: int = 0
    same: int = 0
    mixed: int = 0
    lost: int = 0
    largest: float = 0.0

    def add(self, replies: Sequence[httpx.Response], expected: Sequence[str]) -> None:
        """Compare replies with the Predictor's answers for each picture alone."""
        for reply, text in zip(replies, expected, strict=True):
            self.asked += 1
            if reply.status_code != 200:
                self.lost += 1
                continue
            content = reply.json()["choices"][0]["message"]["content"]
            self.same += content == text
            try:
                distance = float(np.abs(parse_answer(content).coefficients - parse_answer(text).coefficients).max())
            except AnswerError:
                distance = 1.0
            self.largest = max(self.largest, distance)
            self.mixed += distance > TOLERANCE


# --- requests ---------------------------------------------------------------------------------------------------------


def pictures(work: Workload) -> list[bytes]:
    """Render the faces of a workload as PNG files."""
    out = []
    for n in tqdm(range(work.pictures), desc=f"rendering for {work.name}", leave=False):
        values = sample_coefficients(np.random.default_rng([n, 67]))
        style = STYLES[n % len(STYLES)]
        drawn = render(values, style=style, subject=FIRST_SUBJECT + n, shot=n, size=work.size, framing=work.framing)
        file = io.BytesIO()
        Image.fromarray(drawn.image).save(file, "PNG")
        out.append(file.getvalue())
    return out


def body(data: bytes, work: Workload) -> bytes:
    """Return a chat request about a picture."""
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps(
        {"messages": [{"role": "user", "content": content}], "mode": work.mode, "crop": work.crop}
    ).encode()


@contextlib.contextmanager
def server(model: str, *options: str) -> Iterator[str]:
    """Start the command; yields its URL."""
    command = [sys.executable, "-m", "semanticface", "serve", "--model", model, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if " answers at " not in line:
            raise SemanticFaceError(f"the server did not start. Try: {' '.join(command)}")
        yield line.split(" answers at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(120)
        process.stdout.close()


async def ask(url: str, bodies: Sequence[bytes], at_once: int) -> tuple[float, list[float], list[httpx.Response]]:
    """Send requests at a concurrency; return the total seconds, those of each, and the replies in order."""
    semaphore = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(limits=limits, timeout=300, headers=headers) as client:

        async def one(content: bytes) -> tuple[float, httpx.Response]:
            async with semaphore:
                started = time.perf_counter()
                reply = await client.post(f"{url}/chat/completions", content=content)
                return time.perf_counter() - started, reply

        started = time.perf_counter()
        results = await asyncio.gather(*map(one, bodies))
        return time.perf_counter() - started, [seconds for seconds, _ in results], [reply for _, reply in results]


# --- measurements -----------------------------------------------------------------------------------------------------


def measure(url: str, predictor: Predictor, work: Workload, rounds: int) -> dict[str, Any]:
    """Measure the Predictor and the server alternately on one workload."""
    files = pictures(work)
    bodies = [body(data, work) for data in files]
    expected = [each.text for each in predictor(files, batch_size=1, crop=work.crop)]
    if not all(expected):
        raise SemanticFaceError(f"{work.name}: the model could not read {expected.count('')} of the rendered faces.")
    tallies = {at_once: Tally(at_once) for at_once in AT_ONCE}
    direct: list[float] = []
    asyncio.run(ask(url, bodies[:16], 16))  # warm-up
    for _ in tqdm(range(rounds), desc=work.name, unit="round"):
        started = time.perf_counter()
        predictor(files, batch_size=16, crop=work.crop)
        direct.append(len(files) / (time.perf_counter() - started))
        for at_once, tally in tallies.items():
            part = slice(None) if at_once > 1 else slice(0, max(8, len(files) // 4))
            seconds, each, replies = asyncio.run(ask(url, bodies[part], at_once))
            tally.rates.append(len(replies) / seconds)
            tally.latencies += each
            tally.add(replies, expected[part])
    rows = [
        {
            "at_once": tally.at_once,
            "requests_per_second": statistics.median(tally.rates),
            "ratio": statistics.median(np.divide(tally.rates, direct).tolist()),
            "median_ms": 1000 * statistics.median(tally.latencies),
            "p95_ms": 1000 * float(np.quantile(tally.latencies, 0.95)),
            **{name: value for name, value in asdict(tally).items() if name not in ("at_once", "rates", "latencies")},
        }
        for tally in tallies.values()
    ]
    return {"work": work.name, "pictures": len(files), "predictor_per_second": statistics.median(direct), "rows": rows}


def beyond(model: str, work: Workload, predictor: Predictor) -> dict[str, int]:
    """Send more concurrent requests than a server has slots."""
    files = pictures(work)
    expected = [each.text for each in predictor(files, batch_size=1, crop=work.crop)]
    with server(model, "--queue", str(SLOTS)) as url:
        _, _, replies = asyncio.run(ask(url, [body(data, work) for data in files], len(files)))
    tally = Tally(len(files))
    answered = [n for n, reply in enumerate(replies) if reply.status_code == 200]
    tally.add([replies[n] for n in answered], [expected[n] for n in answered])
    refused = [reply for reply in replies if reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1]
    return {
        "asked": len(files),
        "answered": len(answered),
        "refused": len(refused),
        "otherwise": len(files) - len(answered) - len(refused),
        "mixed": tally.mixed,
    }


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['work']}: the Predictor reads {result['predictor_per_second']:.1f} a second in batches of 16")
    print(f"{'at once':>8}{'a second':>10}{'ratio':>8}{'median ms':>11}{'p95 ms':>9}{'asked':>7}{'same':>6}", end="")
    print(f"{'largest':>9}{'mixed':>7}{'lost':>6}")
    for row in result["rows"]:
        print(
            f"{row['at_once']:8}{row['requests_per_second']:10.1f}{row['ratio']:8.2f}{row['median_ms']:11.0f}"
            f"{row['p95_ms']:9.0f}{row['asked']:7}{row['same']:6}{row['largest']:9.2f}{row['mixed']:7}{row['lost']:6}"
        )


def figures(parts: Sequence[dict[str, Any]], refusals: dict[str, int]) -> dict[str, Any]:
    """Return the JSON summary."""
    out: dict[str, Any] = {}
    for part in parts:
        name, rows = part["work"], {row["at_once"]: row for row in part["rows"]}
        out[f"predictor_per_second_{name}"] = round(part["predictor_per_second"], 1)
        out[f"requests_per_second_{name}"] = round(rows[16]["requests_per_second"], 1)
        out[f"ratio_{name}"] = round(rows[16]["ratio"], 3)
        for at_once, row in rows.items():
            out[f"median_ms_{name}_{at_once}"] = round(row["median_ms"], 1)
            out[f"p95_ms_{name}_{at_once}"] = round(row["p95_ms"], 1)
    every = [row for part in parts for row in part["rows"]]
    for name in ("asked", "same", "mixed", "lost"):
        out[name] = sum(row[name] for row in every)
    return out | {f"beyond_{name}": value for name, value in refusals.items()}


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="nano or a folder (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--pictures", type=int, default=200, help="in numbers; a third of it in the others (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round, 60 pictures")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/speed/serve.json"), help="output file (default: %(default)s)"
    )
    options = parser.parse_args()
    rounds, count = (1, 60) if options.quick else (options.rounds, options.pictures)
    if rounds < 1 or count < 48:
        parser.error("give --rounds of at least 1 and --pictures of at least 48")
    works = [
        Workload("numbers", "numbers", "none", "crop", 128, count),
        Workload("full", "full", "none", "crop", 128, count // 3),
        Workload("found", "numbers", "auto", "portrait", 256, count // 3),
    ]
    try:
        predictors = {mode: Predictor.from_pretrained(options.model, mode=mode) for mode in ("numbers", "full")}
        with server(options.model) as url:
            parts = [measure(url, predictors[work.mode], work, rounds) for work in works]
        refusals = beyond(options.model, works[0], predictors["numbers"])
        summary = figures(parts, refusals)
        write_json(options.out, {"parts": parts, "beyond": refusals, "versions": versions(), **summary})
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for part in parts:
        show(part)
    print(f"\n{refusals['asked']} at a time for {SLOTS} slots: {refusals['answered']} answered,", end=" ")
    print(f"{refusals['refused']} refused with 429, {refusals['otherwise']} otherwise, {refusals['mixed']} mixed\n")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
