"""Ask a vision-language model that was not trained here to read cartoon faces, and measure it as the benchmark does.

    python eval/zero_shot.py Qwen/Qwen3-VL-4B-Instruct                       # a model on this machine, by id or folder
    python eval/zero_shot.py --url http://127.0.0.1:8000/v1 --model NAME     # vLLM, llama.cpp, Ollama, our own
    python eval/zero_shot.py nano --limit 50                                 # our own, asked as it was trained to be
    python eval/zero_shot.py MODEL --examples 2 --semantics with             # two faces with their answers shown first
    python eval/zero_shot.py MODEL --pictures photos/                        # your own pictures: a page to look at

The pictures are the first ``--limit`` of the benchmark's *toon* and *drawn* sets, drawn where they are not there yet.
Each is asked about with semantics (words, then numbers in the light of them) and without (numbers alone). Scored is
against the exact labels, beside constants that always answer the labels' mean or median, with 95 % bootstrap intervals
over people. A folder of your own may hold ``labels.csv`` or ``labels.jsonl`` (``image`` and the 52 actions): then it is
scored too.

A server is held to the answer's JSON Schema where it can be; one that refuses is asked without. A model on this machine
writes under the project's grammar. What cannot be read all the same is a row with a reason and counts against the share
of valid answers.

Every reply is appended to OUT/NAME/SEMANTICS/SET.jsonl as it comes. Stopped at any moment, the same command goes on and
asks for what is missing alone. The key of a server is read from the environment variable that ``--key-env`` names.

Writes into OUT/NAME: ``zero_shot.json``, ``zero_shot.md`` and ``index.html``. The last line is one JSON object:
``SET_SEMANTICS_corr``, ``_mae`` and ``_valid``. Exit codes: 0 done; 1 some pictures could not be read or got no reply,
and another run may mend that; 2 nothing could be done; 130 interrupted.
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

from semanticface.cli.arguments import positive
from semanticface.cli.scripts import ScriptParser
from semanticface.data.rendered import renderer_hash
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.evaluation.benchmark import LABELS_FOR_CONSTANTS, ROWS, SEED, SETS, SIZE, constant_answers
from semanticface.evaluation.zero_shot.pictures import PictureSet, benchmark_set, folder_set
from semanticface.evaluation.zero_shot.questions import (
    EXAMPLE_LOOKS,
    MAX_EXAMPLES,
    Estimate,
    ZeroShotModel,
    estimate,
    question,
    spent,
)
from semanticface.evaluation.zero_shot.report import TITLE, Scored, figures, headline, how, score, summary, write_report
from semanticface.evaluation.zero_shot.run import Asking, alone, fingerprints, prepare, run
from semanticface.evaluation.zero_shot.server import ServerModel
from semanticface.llm.chat import read_key
from semanticface.llm.client import ChatClient, ChatReply, ChatServer
from semanticface.recipe import git_commit, versions
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.progress import tqdm


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, score and write; return the exit code."""
    options = _options(arguments)
    try:
        with ExitStack() as open_:
            return zero_shot(options, open_)
    except SemanticFaceError as error:
        print(f"zero_shot: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zero_shot: interrupted; the replies so far are kept, the same command goes on", file=sys.stderr)
        return 130


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("local", nargs="?", metavar="MODEL", help="nano, a model or adapter folder, or a hub id")
    what = parser.add_argument_group("what is asked about")
    what.add_argument("--sets", nargs="+", choices=SETS, default=["toon", "drawn"], help="the benchmark's (toon drawn)")
    what.add_argument("--pictures", type=Path, metavar="DIR", help="your own pictures in place of the sets")
    what.add_argument("--limit", type=positive, default=100, help=f"pictures a set, at most {ROWS} (%(default)s)")
    what.add_argument(
        "--faces",
        type=Path,
        default=Path("outputs/benchmark/pictures"),
        metavar="DIR",
        help="where the benchmark's pictures are, or are drawn (%(default)s)",
    )
    how_ = parser.add_argument_group("how it is asked")
    how_.add_argument("--semantics", choices=("both", "with", "without"), default="both", help="(%(default)s)")
    how_.add_argument(
        "--examples", type=int, default=0, metavar="K", help=f"faces with answers shown first, up to {MAX_EXAMPLES} (0)"
    )
    how_.add_argument(
        "--crop", choices=("whole", "face"), default="whole", help="show the whole picture, or the face found in it"
    )
    how_.add_argument("--no-emotion", action="store_true", help="leave out what a face suggests a person feels")
    how_.add_argument("--free", action="store_true", help="let the model write freely: no schema, no grammar")
    how_.add_argument("--max-tokens", type=positive, help="where replies are cut (2048, or 1024 without semantics)")
    server = parser.add_argument_group("a server")
    server.add_argument("--url", help="root of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1")
    server.add_argument("--model", metavar="NAME", help="the model's name there")
    server.add_argument("--key-env", metavar="VARIABLE", help="environment variable that holds the key")
    server.add_argument(
        "--send-pictures", action="store_true", help="pictures of --pictures may go to a server elsewhere"
    )
    server.add_argument("--side", type=positive, default=768, help="longest side sent, in pixels (%(default)s)")
    server.add_argument("--concurrency", type=positive, default=4, help="requests at a time (%(default)s)")
    server.add_argument("--timeout", type=float, default=180.0, help="seconds a reply may take (%(default)s)")
    server.add_argument("--retries", type=int, default=4, help="of what may pass: 429, 5xx, timeouts (%(default)s)")
    server.add_argument("--per-minute", type=float, help="requests a minute at most")
    server.add_argument(
        "--price", type=_price, metavar="IN,OUT", help="of a million tokens each: the estimate tells the cost"
    )
    here = parser.add_argument_group("this machine")
    here.add_argument("--batch-size", type=positive, default=8, help="pictures at a time (%(default)s)")
    here.add_argument("--device", help="cpu, cuda, … (default: the best there is)")
    here.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="that draw pictures (all cores)")
    here.add_argument("--out", type=Path, default=Path("outputs/zero_shot"), help="folder of results (%(default)s)")
    here.add_argument("--estimate", action="store_true", help="say what is left to ask and what it takes, and stop")
    options = parser.parse_args(arguments)
    if (options.local is None) == (options.url is None):
        parser.error("give a MODEL on this machine, or a server by --url and --model")
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


def zero_shot(options: argparse.Namespace, open_: ExitStack) -> int:
    """Do what ``options`` say; what is to be closed goes onto ``open_``."""
    reader = _server(options, open_) if options.url else _local(options)
    sets = _sets(options)
    for each in sets:
        for problem in each.problems:
            print(f"zero_shot: {problem}", file=sys.stderr)
    out = options.out / _folder(reader.name, options)
    open_.enter_context(alone(out))
    wanted = ("with", "without") if options.semantics == "both" else (options.semantics,)
    askings: dict[str, list[Asking]] = {}
    for each in sets:
        prints = fingerprints(each)
        askings[each.key] = [prepare(reader, _question(each, key, options), each, prints, out) for key in wanted]
    every = [asking for found in askings.values() for asking in found]
    left = reduce(add, (estimate(asking.asked, len(asking.wanted), SIZE) for asking in every), Estimate(0, 0, 0))
    amount = left.told(options.price) if options.url else f"{left.requests} replies to get"
    print(f"zero_shot: {reader.name}: {amount}", file=sys.stderr)
    if options.estimate:
        return 0
    if isinstance(reader, ServerModel):
        reader = replace(reader, first=_teller(left.requests, options))
    for asking in every:
        run(reader, asking)
        if isinstance(reader, ServerModel):
            reader = replace(reader, first=None)
    return _finish(reader, askings, out, options)


def _server(options: argparse.Namespace, open_: ExitStack) -> ServerModel:
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
        print(f"zero_shot: pictures leave this machine, for {httpx.URL(server.url).host}", file=sys.stderr)
        if options.pictures is not None and not options.send_pictures:
            raise ConfigError(
                f"{options.pictures} may show people: add --send-pictures if they may go to that server, or ask a "
                "model on this machine"
            )
    return ServerModel(open_.enter_context(ChatClient(server)), options.side, options.free, options.max_tokens)


def _local(options: argparse.Namespace) -> ZeroShotModel:
    from semanticface.evaluation.zero_shot.local import LocalModel

    reader = LocalModel(
        options.local,
        device=options.device,
        batch_size=options.batch_size,
        free=options.free,
        max_tokens=options.max_tokens,
    )
    if reader.obstacle:
        print(f"zero_shot: {reader.name} writes freely: {reader.obstacle}", file=sys.stderr)
    return reader


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
        looks=pictures.looks or EXAMPLE_LOOKS,
    )


def _folder(name: str, options: argparse.Namespace) -> str:
    """Return the name of the run's folder: the model, and what is not as usual."""
    parts = [re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"]
    if options.pictures is not None:
        parts.append("on-" + (re.sub(r"[^\w.-]+", "-", options.pictures.resolve().name).strip("-.") or "pictures"))
    parts += [f"{options.examples}-examples"] * bool(options.examples) + [options.crop] * (options.crop != "whole")
    parts += ["free"] * options.free + ["no-emotion"] * options.no_emotion
    return "-".join(parts)


def _teller(requests: int, options: argparse.Namespace) -> Any:
    def told(reply: ChatReply) -> None:
        if reply.status == "ok":
            minutes = (requests - 1) * reply.seconds / options.concurrency / 60
            tqdm.write(
                f"zero_shot: the first reply took {reply.seconds:.1f} s: {max(0.1, minutes):.1f} min for the rest, "
                f"{options.concurrency} at a time, unless they slow each other down",
                file=sys.stderr,
            )

    return told


def _command(options: argparse.Namespace) -> str:
    """Return the command without places that mean something on this machine alone."""
    parts = ["python", "eval/zero_shot.py"]
    parts += ["--url", options.url, "--model", options.model] if options.url else [_called(options.local)]
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


def _called(model: str) -> str:
    """Return a hub id as it is, and a folder by its name."""
    return Path(model).name if Path(model).is_dir() else model


def _finish(reader: ZeroShotModel, askings: dict[str, list[Asking]], out: Path, options: argparse.Namespace) -> int:
    """Score, write JSON, Markdown and page, tell, and return the exit code."""
    mean, median = constant_answers(LABELS_FOR_CONSTANTS)
    sets = {}
    for key, found in askings.items():
        judged = {asking.asked.semantics: asking.judged() for asking in found}
        pictures = found[0].pictures
        scored = {"about": pictures.about} | score(pictures, judged, mean, median, seed=SEED)
        sets[key] = Scored(pictures, judged, scored)
    every = [asking for found in askings.values() for asking in found]
    took = [asking.log.tokens(list(asking.pictures.names)) for asking in every]
    tokens_in, tokens_out = (sum(each[side] for each in took) for side in (0, 1))
    results = {key: scored.result for key, scored in sets.items()}
    recipe: dict[str, Any] = {
        "command": _command(options),
        "reader": {asking.asked.semantics: reader.record(asking.asked) for asking in every},
        "questions": {
            key: {asking.asked.semantics: asking.asked.record() for asking in found} for key, found in askings.items()
        },
        "examples": options.examples,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "renderer": renderer_hash(),
        "commit": git_commit(),
        "versions": versions(),
    }
    if isinstance(reader, ServerModel):
        recipe |= {"url": reader.client.server.url, "schema": reader.client.schemas and not reader.free}
    last = headline(results)
    write_json(out / "zero_shot.json", {"headline": last, "sets": results, "recipe": recipe})
    table = summary(results)
    with atomic_open(out / "zero_shot.md") as file:
        parts = [f"# {TITLE}: {reader.name}", how(results, recipe), table.markdown()]
        parts += [each.markdown() for key, result in results.items() for each in figures(key, result)]
        file.write("\n\n".join(parts) + "\n")
    facts = {"model": reader.name, "examples": str(options.examples), "shown": options.crop}
    if options.url:
        facts["server"] = options.url
    facts |= {"command": recipe["command"]} | ({"commit": recipe["commit"]} if recipe["commit"] else {})
    write_report(out / "index.html", sets, recipe, facts)
    print(f"\n{table.markdown()}\n\n{out / 'index.html'}\n")
    if tokens_in or tokens_out:
        print(f"All replies together: {spent(tokens_in, tokens_out, options.price)}", file=sys.stderr)
    again = sum(asking.again() for asking in every)
    if again:
        print(f"zero_shot: replies still missing: {again}. Run the same command again.", file=sys.stderr)
    unread = sum(found[0].prints.count(None) for found in askings.values())
    if unread:
        print(f"zero_shot: pictures that cannot be read: {unread}. Mend or remove them (see above).", file=sys.stderr)
    print(json.dumps(last))
    answered = any(each.status == "ok" for asking in every for each in asking.judged())
    return 1 if again or unread or not answered else 0


if __name__ == "__main__":
    sys.exit(main())
