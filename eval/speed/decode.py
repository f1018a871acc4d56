"""Decoding speed: forward passes, time against constrained `generate`, faces a second, memory.

    python eval/speed/decode.py                       # about a quarter of an hour on two idle cores
    python eval/speed/decode.py --parts answers digits stream
    python eval/speed/decode.py --quick               # a minute
    OMP_NUM_THREADS=1 python eval/speed/decode.py     # on a busy machine, where waiting threads take many times as long
    python eval/speed/decode.py --model outputs/my-adapter

`answers`: the same rendered crops, prompt tensors and float32 weights, greedy, batches of 1 and 16. All methods take
turns picture by picture, so that a busy machine slows all alike; ratios are medians over pictures (at 16, over
batches). Ours are `semanticface.inference.engine` (sequential and parallel numbers) and its baseline, token by token
through `generate`. The peers are `generate` with the LogitsProcessor of xgrammar and of outlines, for the same texts:
canonical JSON in fixed key order, texts of bounded length, 52 numbers of two decimals. Compiling their grammars is not
counted. One engine answers all pictures of its column, as in use, and its draft learns phrases on the way: it has
answered 240 other pictures before (48 with --quick), sees no picture twice, and starts with one that is not counted. A
pass is a call of the language model. A model is trained for sequential or parallel numbers (recipe, `numbers`); the
other layout is measured too, with valid but less meaningful texts.

`digits`: a small Qwen3-VL with random weights and single digits as tokens: is the sequential text identical?
`stream`: `Predictor.stream` from pictures in memory, batches of 16, the recipe's readout, all cores; with given crops,
and with the face detector on portraits. `memory`: resident memory of a process that answers 10,000 altered crops.

Goals: identical text, at most 1/4 of the passes sequentially and 1/15 in parallel, 4 times as fast as the better peer
at batch 1 and 3 times at 16, 15 faces a second of numbers and 5 of full answers on 2 cores, constant memory.
`speedup_…` is of full answers in the layout the model was trained with. A model trained with parallel numbers never
learnt to write their keys, and a peer spells them in several times the tokens they need; to be fair, `speedup_…` counts
only as many of its passes as token by token makes, `speedup_…_as_it_comes` all of them. Peers need `pip install -e
'.[bench]'`; without them the figures are null. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from decode_peers import MAKERS, Inputs, Method, peer
from PIL import Image, ImageEnhance

from semanticface.cli.scripts import ScriptParser
from semanticface.errors import AnswerError
from semanticface.inference.decoder import AnswerDecoder, Mode
from semanticface.inference.engine import DecodingEngine
from semanticface.inference.predictor import Predictor
from semanticface.models.answer_tokens import Numbers
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import Bundle, ModelConfig, load_base, load_trained
from semanticface.prompts import load_prompt
from semanticface.recipe import versions
from semanticface.rendering import STYLES, render
from semanticface.semantics.answer import parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("answers", "digits", "stream", "memory")
BATCHES = (1, 16)
TOKEN = "token by token"
FIRST_SUBJECT = 9_000_000  # training sets count their people from 0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much to measure.

    Attributes:
        pictures: answered one by one, by batch size.
        digits: pictures for the Qwen3-VL, by batch size.
        rounds: of the stream, each of ``round`` new pictures.
        round: pictures.
        memory: pictures of the memory part.
        before: other pictures that an engine has answered before it is measured, as in a folder or a service.
    """

    pictures: dict[int, int]
    digits: dict[int, int]
    rounds: int
    round: int
    memory: int
    before: int


FULL = Amounts({1: 24, 16: 48}, {1: 8, 16: 16}, 5, 48, 10_000, 240)
QUICK = Amounts({1: 8, 16: 16}, {1: 1, 16: 2}, 1, 16, 200, 48)


@dataclass(frozen=True, slots=True)
class Run:
    """One batch: wall-clock and processor seconds, calls of the language model, and the texts."""

    seconds: float
    cpu: float
    passes: int
    texts: list[str]


class PassCounter:
    """Counts the calls of a model's language layers."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        model.get_decoder().register_forward_hook(self._called)

    def _called(self, *_: Any) -> None:
        self.count += 1


# --- pictures ---------------------------------------------------------------------------------------------------------


def crops(count: int, size: int, first: int = 0, framing: Literal["crop", "portrait"] = "crop") -> list[Image.Image]:
    """Render faces in alternating styles; each number is its own person and expression."""
    out = []
    for n in tqdm(range(first, first + count), desc="rendering", leave=False):
        coefficients = sample_coefficients(np.random.default_rng([n, 83]))
        style = STYLES[n % len(STYLES)]
        rendered = render(
            coefficients, style=style, subject=FIRST_SUBJECT + n, shot=FIRST_SUBJECT + n, size=size, framing=framing
        )
        out.append(Image.fromarray(rendered.image))
    return out


# --- decoding methods -------------------------------------------------------------------------------------------------


def ours(bundle: Bundle, layouts: Sequence[tuple[Mode, Numbers | None]]) -> dict[str, Method]:
    """Return our own methods by name; None for numbers is token by token."""
    out: dict[str, Method] = {}
    for mode, numbers in layouts:
        decoder = AnswerDecoder(
            bundle.tokenizer,
            emotion=bundle.recipe["emotion"],
            numbers=numbers or "sequential",
            mode=mode,
            order="numbers" if numbers == "parallel" else "analysis",
        )
        if numbers:
            out[name_of(mode, numbers)] = DecodingEngine(decoder, bundle.model).generate_text
        else:
            out[name_of(mode, None)] = partial(token_by_token, decoder, bundle.model)
    return out


def token_by_token(decoder: AnswerDecoder, model: Any, inputs: Mapping[str, Any]) -> list[str]:
    """Return the texts of ``model.generate``, one token a forward pass."""
    return [answer.text for answer in decoder.generate_token_by_token(model, inputs)]


def name_of(mode: Mode, numbers: Numbers | None) -> str:
    """Return the name of one of our own methods."""
    return f"{numbers or TOKEN}, {mode}"


SEQUENTIAL, PARALLEL, BASELINE = (name_of("full", numbers) for numbers in ("sequential", "parallel", None))
LAYOUTS: tuple[tuple[Mode, Numbers | None], ...] = tuple(
    itertools.product(("full", "numbers"), (None, "sequential", "parallel"))
)


def peers(bundle: Bundle) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the peers that are available, and why the others are not."""
    decoder = AnswerDecoder(bundle.tokenizer, emotion=bundle.recipe["emotion"])
    found: dict[str, Method] = {}
    absent: dict[str, str] = {}
    for name, maker in MAKERS.items():
        start = time.perf_counter()
        try:
            found[name] = peer(bundle, decoder, maker(bundle, bundle.recipe["emotion"]))
            print(f"{name}: grammar compiled in {time.perf_counter() - start:.2f} s")
        except ImportError as error:
            absent[name] = f"{error}: pip install -e '.[bench]'"
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            absent[name] = f"not usable: {error}"
    return found, absent


def take_turns(
    methods: Mapping[str, Method], batches: Sequence[Inputs], counter: PassCounter, what: str, *, started: bool = False
) -> dict[str, list[Run]]:
    """Answer every batch with every method, in turns; the first batch does not count unless ``started``."""
    runs: dict[str, list[Run]] = {name: [] for name in methods}
    for n, inputs in enumerate(tqdm(batches, desc=what, leave=False)):
        # The first one runs with cold caches.
        order = list(methods)[n % len(methods) :] + list(methods)[: n % len(methods)]
        for name in order:
            before, start, cpu = counter.count, time.perf_counter(), time.process_time()
            texts = methods[name](inputs)
            run = Run(time.perf_counter() - start, time.process_time() - cpu, counter.count - before, texts)
            if n or started:
                runs[name].append(run)
    return runs


def batches_of(bundle: Bundle, pictures: Sequence[Image.Image], size: int) -> list[Inputs]:
    """Return the model's inputs for batches of pictures."""
    prompt = load_prompt(bundle.recipe["prompt"]["name"], emotion=bundle.recipe["emotion"])
    chunks = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    return [prompt_inputs(bundle, prompt, chunk) for chunk in chunks]


def ratio(one: Sequence[Run], other: Sequence[Run], of: Literal["seconds", "cpu"] = "seconds") -> float:
    """Return how many times as long ``one`` takes as ``other``; median over batches."""
    return statistics.median(getattr(a, of) / getattr(b, of) for a, b in zip(one, other, strict=True))


def passes(runs: Sequence[Run]) -> float:
    """Return the forward passes of a batch; mean over batches."""
    return statistics.fmean(run.passes for run in runs)


def same_texts(one: Sequence[Run], other: Sequence[Run]) -> int:
    """Return how many texts are identical."""
    return sum(a == b for x, y in zip(one, other, strict=True) for a, b in zip(x.texts, y.texts, strict=True))


def n_valid(runs: Sequence[Run]) -> int:
    """Return how many texts are valid answers."""
    count = 0
    for text in itertools.chain.from_iterable(run.texts for run in runs):
        try:
            parse_answer(text)
            count += 1
        except AnswerError:
            pass
    return count


def table(runs: Mapping[str, Sequence[Run]], batch: int) -> list[dict[str, Any]]:
    """Print one line a method, and return the figures."""
    pictures = sum(len(run.texts) for run in runs[BASELINE])
    print(f"\nbatch {batch}, {pictures} pictures")
    print(f"{'':24}{'passes':>8}{'ms':>9}{'CPU ms':>9}{'valid':>7}{'same text':>11}")
    rows = []
    for name, found in runs.items():
        row = {
            "what": name,
            "batch": batch,
            "passes": round(passes(found), 2),
            "ms": round(statistics.median(1000 * run.seconds / len(run.texts) for run in found), 2),
            "cpu_ms": round(statistics.median(1000 * run.cpu / len(run.texts) for run in found), 2),
            "valid": n_valid(found),
            "same_text": same_texts(found, runs[name_of("numbers" if name.endswith("numbers") else "full", None)]),
        }
        rows.append(row)
        print(
            f"{name:24}{row['passes']:8.1f}{row['ms']:9.1f}{row['cpu_ms']:9.1f}{row['valid']:7}{row['same_text']:11}",
            flush=True,
        )
    return rows


def speedups(runs: Mapping[str, Sequence[Run]], mine: str) -> dict[str, float | None]:
    """Return how many times as fast as the better peer one of our methods is; medians over batches.

    ``speedup`` counts at most as many of the peer's passes as token by token makes, ``speedup_cpu`` does so in
    processor time, and ``speedup_as_it_comes`` all of them.
    """
    available = [name for name in MAKERS if name in runs]
    if not available:
        return dict.fromkeys(("speedup", "speedup_cpu", "speedup_as_it_comes"))

    def without_extra_passes(name: str) -> list[Run]:
        needed = [min(1.0, slow.passes / run.passes) for run, slow in zip(runs[name], runs[BASELINE], strict=True)]
        return [
            Run(run.seconds * share, run.cpu * share, run.passes, run.texts)
            for run, share in zip(runs[name], needed, strict=True)
        ]

    def best(found: Mapping[str, Sequence[Run]]) -> Sequence[Run]:
        return min(found.values(), key=lambda runs: statistics.median(run.seconds for run in runs))

    peer_runs = best({name: without_extra_passes(name) for name in available})
    return {
        "speedup": round(ratio(peer_runs, runs[mine]), 2),
        "speedup_cpu": round(ratio(peer_runs, runs[mine], "cpu"), 2),
        "speedup_as_it_comes": round(ratio(best({name: runs[name] for name in available}), runs[mine]), 2),
    }


def measure_answers(bundle: Bundle, amounts: Amounts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of the last line, and the details to save."""
    counter = PassCounter(bundle.model)
    others, absent = peers(bundle)
    for name, why in absent.items():
        print(f"{name} is left out ({why})")
    trained = bundle.recipe["numbers"]
    print(f"numbers were trained {trained}; the other layout means less")
    pictures = crops(max(amounts.pictures.values()) + 1, bundle.image_size)
    figures: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    same: list[bool] = []
    faster: dict[str, Any] = {}
    for batch in BATCHES:
        methods = ours(bundle, LAYOUTS) | others
        # Drafts learn from earlier answers, which are part of the figures.
        for inputs in batches_of(bundle, crops(amounts.before, bundle.image_size, first=10_000), max(BATCHES)):
            for name in methods:
                if name not in others and name != BASELINE:
                    methods[name](inputs)
        inputs = batches_of(bundle, pictures[:1], 1)
        inputs += batches_of(bundle, pictures[1 : 1 + amounts.pictures[batch]], batch)
        runs = take_turns(methods, inputs, counter, f"batch {batch}")
        rows += table(runs, batch)
        same.append(same_texts(runs[SEQUENTIAL], runs[BASELINE]) == amounts.pictures[batch])
        found = {method: speedups(runs, method) for method in (SEQUENTIAL, PARALLEL)}
        for method, times in found.items():
            print(
                f"{method}: {times['speedup']} times as fast as the better peer, {times['speedup_cpu']} by CPU time; "
                f"with all its passes, {times['speedup_as_it_comes']}"
            )
        faster[str(batch)] = found
        shipped = found[name_of("full", trained)]
        figures[f"speedup_batch{batch}"] = shipped["speedup"]
        figures[f"speedup_batch{batch}_as_it_comes"] = shipped["speedup_as_it_comes"]
        if batch == 1:
            figures["passes_ratio_sequential"] = round(passes(runs[SEQUENTIAL]) / passes(runs[BASELINE]), 4)
            figures["passes_ratio_parallel"] = round(passes(runs[PARALLEL]) / passes(runs[BASELINE]), 4)
    figures["identical"] = all(same)
    return figures, {"answers": rows, "speedups": faster, "left_out": absent}


# --- a tokenizer of digits --------------------------------------------------------------------------------------------


def measure_digits(amounts: Amounts) -> dict[str, Any]:
    """Return whether texts are identical where a number is several tokens, and the passes, by batch size."""
    sys.path.insert(0, str(ROOT))
    from tests.helpers import tiny_models

    with tempfile.TemporaryDirectory() as scratch:
        folder = str(tiny_models.qwen3_vl(Path(scratch)))
        bundle = load_base(ModelConfig(folder, device="cpu", image_size=tiny_models.SIDE["qwen3_vl"]))
    counter = PassCounter(bundle.model)
    pictures = crops(max(amounts.digits.values()), bundle.image_size)
    same, rows = True, []
    for batch in BATCHES:
        methods = ours(bundle, (("full", None), ("full", "sequential")))
        count = amounts.digits[batch]
        inputs = batches_of(bundle, pictures[:count], batch)
        runs = take_turns(methods, inputs, counter, f"Qwen3-VL, batch {batch}", started=True)
        equal = same_texts(runs[SEQUENTIAL], runs[BASELINE])
        same &= equal == count
        rows.append({"batch": batch, "passes": {name: round(passes(found), 2) for name, found in runs.items()}})
        print(
            f"Qwen3-VL with random weights and digits, batch {batch}: {equal} of {count} texts identical, "
            f"{passes(runs[SEQUENTIAL]):.0f} passes sequentially, {passes(runs[BASELINE]):.0f} token by token"
        )
    return {"identical": same, "rows": rows}


# --- faces a second ---------------------------------------------------------------------------------------------------


def measure_stream(bundle: Bundle, amounts: Amounts) -> dict[str, Any]:
    """Return faces a second of `Predictor.stream`, end to end, by mode and crop; medians over rounds."""
    cases = tuple(itertools.product(("numbers", "full"), ("none", "auto")))
    predictors = {case: Predictor(bundle, mode=case[0]) for case in cases}  # type: ignore[arg-type]
    rates: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    found = dict.fromkeys(cases, 0)
    first = 100_000
    for number in range(amounts.rounds + 1):
        count = amounts.round if number else 4
        pictures = {
            "none": crops(count, bundle.image_size, first),
            "auto": crops(count, 224, first, "portrait"),
        }
        first += count
        for case in cases:
            start = time.perf_counter()
            answers = list(predictors[case].stream(pictures[case[1]], crop=case[1]))  # type: ignore[arg-type]
            seconds = time.perf_counter() - start
            if number:
                rates[case].append(count / seconds)
                found[case] += sum(answer.status == "ok" for answer in answers)
    figures: dict[str, Any] = {}
    print(f"\n{'faces a second':24}{'given crops':>14}{'faces found':>14}")
    for mode in ("numbers", "full"):
        one, other = (round(statistics.median(rates[mode, crop]), 2) for crop in ("none", "auto"))
        total = amounts.rounds * amounts.round
        print(f"{mode:24}{one:14.1f}{other:14.1f}   ({found[mode, 'auto']} of {total} found and answered)")
        figures |= {f"faces_per_second_{mode}": one, f"faces_per_second_{mode}_with_finder": other}
    return figures


# --- memory -----------------------------------------------------------------------------------------------------------


def altered(pictures: Sequence[Image.Image], count: int) -> Iterator[Image.Image]:
    """Yield ``count`` different pictures: those given, brighter or darker."""
    rng = np.random.default_rng(1)
    for n in range(count):
        yield ImageEnhance.Brightness(pictures[n % len(pictures)]).enhance(float(rng.uniform(0.5, 1.5)))


def growth(memory: Sequence[int]) -> float:
    """Return the growth of resident memory: the median of the last tenth of the samples over that of the start.

    There is one sample a picture; the start is the 150th to the 300th, or the second quarter of fewer than 600.
    """
    n = len(memory)
    settled = min(300, n // 2)
    return statistics.median(memory[-max(1, n // 10) :]) / statistics.median(memory[settled // 2 : settled])


def watch_memory(model: str, count: int) -> dict[str, Any]:
    """Answer ``count`` pictures in this process, and return the growth of its memory and samples of it."""
    predictor = Predictor(load_trained(model, device="cpu"), mode="full")
    pictures = crops(48, predictor.bundle.image_size, 200_000)
    process, memory = psutil.Process(), []
    bar = tqdm(predictor.stream(altered(pictures, count), crop="none"), total=count, desc="memory")
    for _ in bar:
        memory.append(process.memory_info().rss)
    return {"growth": round(growth(memory), 4), "mb": [round(rss / 1e6, 1) for rss in memory[:: max(1, count // 100)]]}


def measure_memory(model: str, amounts: Amounts) -> dict[str, Any]:
    """Return the result of `watch_memory` in a separate process."""
    command = [sys.executable, __file__, "--model", model, "--worker", str(amounts.memory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("the memory part failed; its error is above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\nmemory over {amounts.memory:,} pictures: {found['mb'][0]:.0f} MB at first, {found['mb'][-1]:.0f} MB at the "
        f"end; {found['growth']:.3f} times the settled start"
    )
    return found


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help="nano, or a model or adapter folder (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="few pictures: a first impression, not a measurement")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/decode.json"), help="JSON file")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(watch_memory(options.model, options.worker)))
        return 0
    amounts = QUICK if options.quick else FULL
    bundle = load_trained(options.model, device="cpu", dtype="float32")
    figures: dict[str, Any] = dict.fromkeys(
        ("identical_text", "passes_ratio_sequential", "passes_ratio_parallel", "speedup_batch1", "speedup_batch16",
         "faces_per_second_numbers", "faces_per_second_full", "peak_memory_growth")
    )  # fmt: skip
    kept: dict[str, Any] = {}
    identical = []
    if "answers" in options.parts:
        found, kept = measure_answers(bundle, amounts)
        identical.append(found.pop("identical"))
        figures |= found
    if "digits" in options.parts:
        kept["digits"] = measure_digits(amounts)
        identical.append(kept["digits"]["identical"])
    if "stream" in options.parts:
        figures |= measure_stream(bundle, amounts)
    if "memory" in options.parts:
        kept["memory"] = measure_memory(options.model, amounts)
        figures["peak_memory_growth"] = kept["memory"]["growth"]
    if identical:
        figures["identical_text"] = all(identical)
    settings = {
        "model": options.model,
        "numbers": bundle.recipe["numbers"],
        "readout": bundle.recipe["readout"],
        "parts": list(options.parts),
        "quick": options.quick,
        "threads": torch.get_num_threads(),
        **asdict(amounts),
    }
    machine = {"machine": platform.machine(), "processors": os.cpu_count(), "versions": versions()}
    write_json(options.out, {"settings": settings, **figures, **kept, **machine})
    print(options.out)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
