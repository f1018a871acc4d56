"""Add Stage I, the analysis and the answer that a model is trained on, to any dataset of coefficients.

    python data_prep/describe.py takes/take_3.csv outputs/take_3.jsonl
    python data_prep/describe.py outputs/faces outputs/faces_described --no-emotion
    python data_prep/describe.py outputs/faces outputs/written --writer http://127.0.0.1:8000/v1 --writer-model NAME

SOURCE is a Live Link Face CSV (63 columns), a CSV of `image` and the 52 camelCase actions, a JSONL written by
`semanticface predict`, or a folder made by `save_to_disk` with a column `coefficients`. TARGET is a JSONL file for the
first three and a new folder for the last; both get an `answer` and an `analysis` for each row, in the same order.

Rules write the analysis, or with --writer a language model does: one behind a server with OpenAI's chat completions
API (vLLM, llama.cpp, `transformers serve`), or one that transformers loads here. Its analysis is accepted only if it
contradicts no coefficient; otherwise the model gets the list of problems and is asked again, and after the last attempt
the rule-based analysis is used. Each row names its writer. Replies are cached: the same command resumes a stopped run.

A row that cannot be described is kept, with a reason, and listed on standard error. Exit code: 0 if every row was
described, 1 if some were not, 2 on an error.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.cli.scripts import ScriptParser
from semanticface.data.describe import Failure, check_paths, describe_dataset, describe_table
from semanticface.errors import SemanticFaceError, ServerError
from semanticface.llm.analysis_writer import LanguageModelWriter, WriterSettings, WriterSpec, open_chat
from semanticface.llm.reply_cache import ReplyCache

MAX_LISTED = 20  # failed rows listed one by one


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    cache_path = options.cache or options.target.with_name(f"{options.target.name}.replies.sqlite")
    try:
        if options.writer is None:
            _refuse_writer_options(parser, options)
            total, failures = _describe(options, None)
        else:
            total, failures = _describe_with_model(options, cache_path)
    except ServerError as error:
        print(f"error: {error}\n{_resume_hint(cache_path)}", file=sys.stderr)
        return 2
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.target} was not written", file=sys.stderr)
        if options.writer is not None:
            print(_resume_hint(cache_path), file=sys.stderr)
        return 130
    for failure in failures[:MAX_LISTED]:
        print(
            failure.reason if failure.where in failure.reason else f"{failure.where}: {failure.reason}", file=sys.stderr
        )
    if len(failures) > MAX_LISTED:
        print(f"and {len(failures) - MAX_LISTED} more rows; see `reason` in {options.target}", file=sys.stderr)
    print(f"{options.target}: {total - len(failures)} of {total} rows described")
    return 1 if failures else 0


def _describe(options: argparse.Namespace, writer: LanguageModelWriter | None) -> tuple[int, list[Failure]]:
    describe = describe_dataset if options.source.is_dir() else describe_table
    return describe(options.source, options.target, emotion=not options.no_emotion, writer=writer)


def _describe_with_model(options: argparse.Namespace, cache_path: Path) -> tuple[int, list[Failure]]:
    spec = WriterSpec(
        options.writer,
        options.writer_model,
        options.key_env,
        concurrency=options.concurrency,
        timeout=options.timeout,
        per_minute=options.per_minute,
        remote=options.allow_remote,
    )
    settings = WriterSettings(
        options.attempts, options.temperature, options.seed, options.max_tokens, not options.no_emotion
    )
    check_paths(options.source, options.target)  # before a model is loaded, which takes long
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(ReplyCache(cache_path))
        if not spec.is_local:
            print(f"The coefficients of these faces will be sent to {spec.writer}.", file=sys.stderr)
            if not options.yes:
                _confirm()
        chat = stack.enter_context(open_chat(spec))
        writer = LanguageModelWriter(chat, spec.name, settings, cache)
        result = _describe(options, writer)
        print(writer.tally, file=sys.stderr)
        return result


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise SemanticFaceError("there is no terminal to confirm this: add --yes")
    if input("Continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SemanticFaceError("cancelled: nothing was sent or written")


def _resume_hint(cache_path: Path) -> str:
    with contextlib.suppress(SemanticFaceError), ReplyCache(cache_path) as cache:
        if count := len(cache):
            return f"{count} replies are cached in {cache_path}: run the same command again to resume"
    return "no reply was received: run the same command again to start over"


def _refuse_writer_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    given = [name for name in _WRITER_ONLY if getattr(options, name) != parser.get_default(name)]
    if given:
        parser.error(f"--{given[0].replace('_', '-')} needs a language model: name one with --writer")


_WRITER_ONLY = (
    "writer_model",
    "key_env",
    "allow_remote",
    "attempts",
    "temperature",
    "seed",
    "max_tokens",
    "concurrency",
    "per_minute",
    "timeout",
    "cache",
    "yes",
)


def _parser() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CSV, JSONL or dataset folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="JSONL file or new dataset folder")
    parser.add_argument("--no-emotion", action="store_true", help="omit emotional_implication")
    group = parser.add_argument_group("analyses by a language model")
    group.add_argument(
        "--writer", metavar="MODEL", help="a server's URL such as http://127.0.0.1:8000/v1; or the folder, .gguf file, "
        "hub id, or ID:FILE.gguf of a model to load here"
    )  # fmt: skip
    group.add_argument("--writer-model", metavar="NAME", help="the model's name on the server")
    group.add_argument("--key-env", metavar="VARIABLE", help="the environment variable with the server's API key")
    group.add_argument(
        "--allow-remote", action="store_true", help="allow a server on another machine: these faces are rendered, or "
        "everybody in them has consented"
    )  # fmt: skip
    group.add_argument("--attempts", type=arguments.positive, default=3, help="per face (default: %(default)s)")
    group.add_argument("--temperature", type=arguments.temperature, default=0.7, help="(default: %(default)s)")
    group.add_argument("--seed", type=arguments.seed, default=0, help="of the first attempt (default: %(default)s)")
    group.add_argument(
        "--max-tokens", type=int, default=800, help="maximum length of a reply; raise it for reasoning models "
        "(default: %(default)s)"
    )  # fmt: skip
    group.add_argument(
        "--concurrency", type=arguments.positive, default=4, help="simultaneous requests, or the batch size of a model "
        "loaded here (default: %(default)s)"
    )  # fmt: skip
    group.add_argument("--per-minute", type=float, metavar="N", help="maximum requests per minute (default: no limit)")
    group.add_argument("--timeout", type=float, default=120.0, help="seconds per request (default: %(default)g)")
    group.add_argument("--cache", type=Path, metavar="FILE", help="cache of replies (default: TARGET.replies.sqlite)")
    group.add_argument("--yes", action="store_true", help="do not ask before coefficients are sent to another machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
