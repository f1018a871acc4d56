"""Evaluate a vision-language model zero-shot on cartoon faces, scored as in the benchmark.

    python eval/zero_shot.py Qwen/Qwen3-VL-4B-Instruct                       # a local model, by Hub id or folder
    python eval/zero_shot.py --url http://127.0.0.1:8000/v1 --model NAME     # vLLM, llama.cpp, Ollama, our server
    python eval/zero_shot.py nano --limit 50                                 # a SemanticFace model, run as trained
    python eval/zero_shot.py MODEL --examples 2 --semantics with             # with two few-shot examples
    python eval/zero_shot.py MODEL --pictures photos/                        # your own pictures: a page to look at

The pictures are the first ``--limit`` of the benchmark's *toon* and *drawn* sets, rendered if missing. The model is
queried with semantics (an analysis, then numbers conditioned on it) and without (numbers only). Replies are scored
against the exact labels, next to constants that always answer the labels' mean or median, with 95 % bootstrap intervals
over people. Your own folder may contain ``labels.csv`` or ``labels.jsonl`` (``image`` and the 52 actions); then it is
scored too.

A server gets the answer's JSON Schema; one that rejects schemas is queried without. A local model decodes under the
project's grammar. A reply that still cannot be parsed is a row with a reason and lowers the share of valid answers.

Every reply is appended to OUT/NAME/SEMANTICS/SET.jsonl as it arrives. After an interruption the same command queries
only what is missing. A server's key is read from the environment variable that ``--key-env`` names.

Writes into OUT/NAME: ``zero_shot.json``, ``zero_shot.md`` and ``index.html``. The last line of output is a JSON object:
``SET_SEMANTICS_corr``, ``_mae`` and ``_valid``. Exit codes: 0 success; 1 some pictures could not be read or got no
reply, which another run may fix; 2 nothing could be done; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import httpx

from semanticface.cli.arguments import add_device, add_no_emotion, positive
from semanticface.cli.scripts import ScriptParser
from semanticface.data.rendered import renderer_hash
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.evaluation.benchmark import HOME, LABELS_FOR_CONSTANTS, ROWS, SEED, SIZE, constant_answers
from semanticface.evaluation.zero_shot.pictures import PictureSet, benchmark_set, folder_set
from semanticface.evaluation.zero_shot.questions import (
    EXAMPLE_STYLES,
    MAX_EXAMPLES,
    Estimate,
    ZeroShotModel,
    estimate,
    question,
    spent,
)
from semanticface.evaluation.zero_shot.report import TITLE, Scored, figures, headline, how, score, summary, write_report
from semanticface.evaluation.zero_shot.run import Task, fingerprints, prepare, run
from semanticface.evaluation.zero_shot.server import ServerModel
from semanticface.llm.chat import read_key
from semanticface.llm.client import ChatClient, ChatReply, ChatServer
from semanticface.recipe import git_commit, versions
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.lock import exclusive
from semanticface.utils.progress import tqdm


def main(arguments: Sequence[str] | None = None) -> int:
    """Query, score and write; return the exit code."""
    options = _options(arguments)
    try:
        with ExitStack() as stack:
            return zero_shot(options, stack)
    except SemanticFaceError as error:
        print(f"zero_shot: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "zero_shot: interrupted; the replies so far are kept: run the same command again to resume", file=sys.stderr
        )
        return 130


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("local", nargs="?", metavar="MODEL", help="nano, a model or adapter folder, or a Hub id")
    what = parser.add_argument_group("pictures")
    what.add_argument(
        "--sets", nargs="+", choices=HOME, default=["toon", "drawn"], help="sets of the benchmark (toon drawn)"
    )
    what.add_argument("--pictures", type=Path, metavar="DIR", help="your own pictures instead of the sets")
    what.add_argument("--limit", type=positive, default=100, help=f"pictures per set, at most {ROWS} (%(default)s)")
    what.add_argument(
        "--faces",
        type=Path,
        default=Path("outputs/benchmark/pictures"),
        metavar="DIR",
        help="folder of the benchmark's pictures (%(default)s)",
    )
    query = parser.add_argument_group("the question")
    query.add_argument(
        "--semantics",
        choices=("both", "with", "without"),
        default="both",
        help="an analysis before the numbers (%(default)s)",
    )
    query.add_argument(
        "--examples", type=int, default=0, metavar="K", help=f"few-shot examples, up to {MAX_EXAMPLES} (0)"
    )
    query.add_argument(
        "--crop", choices=("whole", "face"), default="whole", help="the whole picture, or the detected face"
    )
    add_no_emotion(query)
    query.add_argument("--free", action="store_true", help="free decoding: no schema, no grammar")
    query.add_argument("--max-tokens", type=positive, help="limit of a reply (2048, or 1024 without semantics)")
    server = parser.add_argument_group("a server")
    server.add_argument("--url", help="root of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1")
    server.add_argument("--model", metavar="NAME", help="the model's name on the server")
    server.add_argument("--key-env", metavar="VARIABLE", help="environment variable that holds the key")
    server.add_argument("--send-pictures", action="store_true", help="allow sending --pictures to a remote server")
    server.add_argument("--side", type=positive, default=768, help="maximum side sent, in pixels (%(default)s)")
    server.add_argument("--concurrency", type=positive, default=4, help="concurrent requests (%(default)s)")
    server.add_argument("--timeout", type=float, default=180.0, help="seconds a reply may take (%(default)s)")
    server.add_argument("--retries", type=int, default=4, help="retries after 429, 5xx and timeouts (%(default)s)")
    server.add_argument("--per-minute", type=float, help="maximum requests per minute")
    server.add_argument(
        "--price", type=_price, metavar="IN,OUT", help="prices per million tokens, to estimate the cost"
    )
    here = parser.add_argument_group("this machine")
    here.add_argument("--batch-size", type=positive, default=8, help="pictures per batch (%(default)s)")
    add_device(here)
    here.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="rendering processes (all cores)")
    here.add_argument("--out", type=Path, default=Path("outputs/zero_shot"), help="folder for results (%(default)s)")
    here.add_argument("--estimate", action="store_true", help="print what is missing and its cost, and stop")
    options = parser.parse_args(arguments)
    if (options.local is None) == (options.url is None):
        parser.error("give a local MODEL, or a server with --url and --model")
    if (options.url is None) != (options.model is None):
        parser.error("--url and --model go together")
    if not 0 <= options.examples <= MAX_EXAMPLES:
        parser.error(f"--examples is {options.examples}: give 0 to {MAX_EXAMPLES}")
    if options.pictures is None and options.limit > ROWS:
        parser.error(f"--limit is {options.limit}: a set has {ROWS} pictures")
    return options


def _price(text: str) -> tuple[float, float]:
    try:
        first, second = map(float, text.split(","))
    except ValueError:
        first = second = -1.0
    if not (0 <= first < math.inf and 0 <= second < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not two prices of a million tokens, in and out, such as 0.25,2")
    return first, second


def zero_shot(options: argparse.Namespace, stack: ExitStack) -> int:
    """Run with the given options; resources are closed by ``stack``."""
    model = _server(options, stack) if options.url else _local(options)
    sets = _sets(options)
    for each in sets:
        for problem in each.problems:
            print(f"zero_shot: {problem}", file=sys.stderr)
    out = options.out / _folder(model.name, options)
    stack.enter_context(exclusive(out))
    wanted = ("with", "without") if options.semantics == "both" else (options.semantics,)
    tasks: dict[str, list[Task]] = {}
    for each in sets:
        prints = fingerprints(each)
        tasks[each.key] = [prepare(model, _question(each, key, options), each, prints, out) for key in wanted]
    every = [task for found in tasks.values() for task in found]
    left = reduce(add, (estimate(task.question, len(task.wanted), SIZE) for task in every), Estimate(0, 0, 0))
    amount = left.summary(options.price) if options.url else f"{left.requests} replies to get"
    print(f"zero_shot: {model.name}: {amount}", file=sys.stderr)
    if options.estimate:
        return 0
    if isinstance(model, ServerModel):
        model = replace(model, on_first=_print_duration(left.requests, options))
    for task in every:
        run(model, task)
        if isinstance(model, ServerModel):
            model = replace(model, on_first=None)
    return _finish(model, tasks, out, options)


def _server(options: argparse.Namespace, stack: ExitStack) -> ServerModel:
    server = ChatServer(
        options.url,
        options.model,
        key=read_key(options.key_env),
        timeout=options.timeout,
        concurrency=options.concurrency,
        retries=options.retries,
        per_minute=options.per_minute,
    )
    if not server.is_local:
        print(f"zero_shot: pictures are sent to {httpx.URL(server.url).host}", file=sys.stderr)
        if options.pictures is not None and not options.send_pictures:
            raise ConfigError(
                f"{options.pictures} may show people: add --send-pictures if they may go to that server, or use a "
                "local model"
            )
    return ServerModel(stack.enter_context(ChatClient(server)), options.side, options.free, options.max_tokens)


def _local(options: argparse.Namespace) -> ZeroShotModel:
    from semanticface.evaluation.zero_shot.local import LocalModel

    model = LocalModel(
        options.local,
        device=options.device,
        batch_size=options.batch_size,
        free=options.free,
        max_tokens=options.max_tokens,
    )
    if model.obstacle:
        print(f"zero_shot: {model.name} decodes freely: {model.obstacle}", file=sys.stderr)
    return model


def _sets(options: argparse.Namespace) -> list[PictureSet]:
    if options.pictures is not None:
        return [folder_set(options.pictures, options.limit)]
    return [
        benchmark_set(options.faces, key, options.limit, size=SIZE, workers=options.workers) for key in options.sets
    ]


def _question(pictures: PictureSet, semantics: Any, options: argparse.Namespace) -> Any:
    return question(
        semantics,
        emotion=not options.no_emotion,
        crop=options.crop,
        examples=options.examples,
        styles=pictures.styles or EXAMPLE_STYLES,
    )


def _folder(name: str, options: argparse.Namespace) -> str:
    """Return the name of the run's folder: the model and the non-default options."""
    parts = [re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"]
    if options.pictures is not None:
        parts.append("on-" + (re.sub(r"[^\w.-]+", "-", options.pictures.resolve().name).strip("-.") or "pictures"))
    parts += [f"{options.examples}-examples"] * bool(options.examples) + [options.crop] * (options.crop != "whole")
    parts += ["free"] * options.free + ["no-emotion"] * options.no_emotion
    return "-".join(parts)


def _print_duration(requests: int, options: argparse.Namespace) -> Any:
    def print_duration(reply: ChatReply) -> None:
        if reply.status == "ok":
            minutes = (requests - 1) * reply.seconds / options.concurrency / 60
            tqdm.write(
                f"zero_shot: the first reply took {reply.seconds:.1f} s; about {max(0.1, minutes):.1f} min left, "
                f"{options.concurrency} at a time",
                file=sys.stderr,
            )

    return print_duration


def _command(options: argparse.Namespace) -> str:
    """Return the command without this machine's paths."""
    parts = ["python", "eval/zero_shot.py"]
    parts += ["--url", options.url, "--model", options.model] if options.url else [_display_name(options.local)]
    if options.pictures is not None:
        parts += ["--pictures", options.pictures.name]
    elif options.sets != ["toon", "drawn"]:
        parts += ["--sets", *options.sets]
    parts += ["--limit", str(options.limit)]
    if options.semantics != "both":
        parts += ["--semantics", options.semantics]
    if options.examples:
        parts += ["--examples", str(options.examples)]
    if options.crop != "whole":
        parts += ["--crop", options.crop]
    parts += ["--no-emotion"] * options.no_emotion + ["--free"] * options.free
    if options.max_tokens is not None:
        parts += ["--max-tokens", str(options.max_tokens)]
    return shlex.join(parts)


def _display_name(model: str) -> str:
    """Return a Hub id unchanged, and a folder by its name."""
    return Path(model).name if Path(model).is_dir() else model


def _finish(model: ZeroShotModel, tasks: dict[str, list[Task]], out: Path, options: argparse.Namespace) -> int:
    """Score, write JSON, Markdown and HTML, print a summary, and return the exit code."""
    mean, median = constant_answers(LABELS_FOR_CONSTANTS)
    sets = {}
    for key, found in tasks.items():
        replies = {task.question.semantics: task.replies() for task in found}
        pictures = found[0].pictures
        scored = {"about": pictures.about} | score(pictures, replies, mean, median, seed=SEED)
        sets[key] = Scored(pictures, replies, scored)
    every = [task for found in tasks.values() for task in found]
    tokens = [task.log.tokens(list(task.pictures.names)) for task in every]
    tokens_in, tokens_out = (sum(each[side] for each in tokens) for side in (0, 1))
    results = {key: scored.result for key, scored in sets.items()}
    recipe: dict[str, Any] = {
        "command": _command(options),
        "reader": {task.question.semantics: model.record(task.question) for task in every},
        "questions": {
            key: {task.question.semantics: task.question.record() for task in found} for key, found in tasks.items()
        },
        "examples": options.examples,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "renderer": renderer_hash(),
        "commit": git_commit(),
        "versions": versions(),
    }
    if isinstance(model, ServerModel):
        recipe |= {"url": model.client.server.url, "schema": model.client.schemas and not model.free}
    last = headline(results)
    write_json(out / "zero_shot.json", {"headline": last, "sets": results, "recipe": recipe})
    table = summary(results)
    with atomic_open(out / "zero_shot.md") as file:
        parts = [f"# {TITLE}: {model.name}", how(results, recipe), table.markdown()]
        parts += [each.markdown() for key, result in results.items() for each in figures(key, result)]
        file.write("\n\n".join(parts) + "\n")
    facts = {"model": model.name, "examples": str(options.examples), "crop": options.crop}
    if options.url:
        facts["server"] = options.url
    facts |= {"command": recipe["command"]} | ({"commit": recipe["commit"]} if recipe["commit"] else {})
    write_report(out / "index.html", sets, recipe, facts)
    print(f"\n{table.markdown()}\n\n{out / 'index.html'}\n")
    if tokens_in or tokens_out:
        print(f"All replies together: {spent(tokens_in, tokens_out, options.price)}", file=sys.stderr)
    missing = sum(task.count_retryable() for task in every)
    if missing:
        print(f"zero_shot: replies still missing: {missing}. Run the same command again.", file=sys.stderr)
    unreadable = sum(found[0].prints.count(None) for found in tasks.values())
    if unreadable:
        print(f"zero_shot: unreadable pictures: {unreadable}. Fix or remove them (see above).", file=sys.stderr)
    print(json.dumps(last))
    answered = any(each.status == "ok" for task in every for each in task.replies())
    return 1 if missing or unreadable or not answered else 0


if __name__ == "__main__":
    sys.exit(main())
