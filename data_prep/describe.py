"""Add Stage I, the explanation in words and the answer a model learns to write, to any dataset of coefficients.

    python data_prep/describe.py takes/take_3.csv outputs/take_3.jsonl
    python data_prep/describe.py outputs/faces outputs/faces_described --no-emotion
    python data_prep/describe.py outputs/faces outputs/written --writer http://127.0.0.1:8000/v1 --writer-model NAME

SOURCE is a Live Link Face CSV (63 columns), a CSV of `image` and the 52 camelCase actions, a JSONL written by
`semanticface predict`, or a folder made by `save_to_disk` with a column `coefficients`. TARGET is a JSONL file for the
first three and a new folder for the last; both get an `answer` and an `analysis` for each row, in the same order.

Rules write the words, or with --writer a language model does: one behind a server that speaks OpenAI's chat
completions (vLLM, llama.cpp, `transformers serve`), or one that transformers loads here. Its words stand only where
they contradict no coefficient; otherwise it is told what was wrong and asked again, and in the end the rules' words
take their place. Each row says who wrote it. Replies are kept: the same command goes on where it was stopped.

A row that cannot be described stays in its place, with a reason, and is named on standard error. Exit code: 0 when
every row was described, 1 when some were not, 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from semanticface.cli import arguments
from semanticface.data.describe import Failure, check_places, describe_dataset, describe_table, good_rows
from semanticface.errors import SemanticFaceError, ServerError
from semanticface.llm.analysis_writer import Choice, LanguageWriter, WriterSettings, estimate, open_chat
from semanticface.llm.reply_cache import ReplyCache

NAMED = 20  # failed rows named one by one


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    kept = options.cache or options.target.with_name(f"{options.target.name}.replies.sqlite")
    try:
        if options.writer is None:
            _refuse_writer_options(parser, options)
            total, failures = _describe(options, None)
        else:
            found = _write(options, kept)
            if found is None:
                return 0
            total, failures = found
    except ServerError as error:
        print(f"error: {error}\n{_goes_on(kept)}", file=sys.stderr)
        return 2
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.target} was not written", file=sys.stderr)
        if options.writer is not None:
            print(_goes_on(kept), file=sys.stderr)
        return 130
    for failure in failures[:NAMED]:
        print(
            failure.reason if failure.where in failure.reason else f"{failure.where}: {failure.reason}", file=sys.stderr
        )
    if len(failures) > NAMED:
        print(f"and {len(failures) - NAMED} more rows; see `reason` in {options.target}", file=sys.stderr)
    print(f"{options.target}: {total - len(failures)} of {total} rows described")
    return 1 if failures else 0


def _describe(options: argparse.Namespace, writer: LanguageWriter | None) -> tuple[int, list[Failure]]:
    describe = describe_dataset if options.source.is_dir() else describe_table
    return describe(options.source, options.target, emotion=not options.no_emotion, writer=writer)


def _write(options: argparse.Namespace, kept: Path) -> tuple[int, list[Failure]] | None:
    """Describe with the language model that the options name; None after a dry run."""
    choice = Choice(
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
    check_places(options.source, options.target)  # a model takes long to load
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(ReplyCache(kept))
        expected = estimate(good_rows(options.source), choice.name, settings, cache)
        print(expected.told(options.prices and tuple(options.prices)), file=sys.stderr)
        if options.dry_run:
            return None
        if not choice.is_here:
            print(f"What is known of these faces goes to {choice.writer}.", file=sys.stderr)
        if not (options.yes or (choice.is_here and options.prices is None)):
            _agree()
        chat = stack.enter_context(open_chat(choice))
        writer = LanguageWriter(chat, choice.name, settings, cache)
        found = _describe(options, writer)
        print(writer.tally, file=sys.stderr)
        return found


def _agree() -> None:
    if not sys.stdin.isatty():
        raise SemanticFaceError("nobody is there to agree to this: add --yes, or look first with --dry-run")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SemanticFaceError("nothing was asked and nothing written")


def _goes_on(kept: Path) -> str:
    with contextlib.suppress(SemanticFaceError), ReplyCache(kept) as cache:
        if count := len(cache):
            return f"{count} replies are kept in {kept}: the same command goes on from there"
    return "no reply was received yet: the same command begins anew"


def _refuse_writer_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    given = [name for name in _WRITER_ONLY if getattr(options, name) != parser.get_default(name)]
    if given:
        parser.error(f"--{given[0].replace('_', '-')} is for a language model: name it with --writer")


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
    "prices",
    "dry_run",
    "yes",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CSV, JSONL or dataset folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="JSONL file or new dataset folder")
    parser.add_argument("--no-emotion", action="store_true", help="leave out what a face suggests a person feels")
    group = parser.add_argument_group("words by a language model")
    group.add_argument(
        "--writer", metavar="WHO", help="a server's URL such as http://127.0.0.1:8000/v1; or a model's folder, .gguf "
        "file, hub id, or ID:FILE.gguf, to be loaded here"
    )  # fmt: skip
    group.add_argument("--writer-model", metavar="NAME", help="the model's name at the server")
    group.add_argument("--key-env", metavar="VARIABLE", help="the environment variable that holds the server's key")
    group.add_argument(
        "--allow-remote", action="store_true", help="faces may be told to a server that is not this machine: they are "
        "drawn, or everybody in them agreed to it"
    )  # fmt: skip
    group.add_argument("--attempts", type=arguments.positive, default=3, help="for each face (default: %(default)s)")
    group.add_argument("--temperature", type=arguments.temperature, default=0.7, help="(default: %(default)s)")
    group.add_argument("--seed", type=arguments.seed, default=0, help="of the first attempt (default: %(default)s)")
    group.add_argument(
        "--max-tokens", type=int, default=800, help="where a reply is cut; more for models that think aloud "
        "(default: %(default)s)"
    )  # fmt: skip
    group.add_argument(
        "--concurrency", type=arguments.positive, default=4, help="requests at once, or side by side in a model loaded "
        "here (default: %(default)s)"
    )  # fmt: skip
    group.add_argument("--per-minute", type=float, metavar="N", help="most requests a minute (default: no limit)")
    group.add_argument("--timeout", type=float, default=120.0, help="seconds a request (default: %(default)g)")
    group.add_argument(
        "--cache", type=Path, metavar="FILE", help="where replies are kept (default: TARGET.replies.sqlite)"
    )
    group.add_argument(
        "--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens, to tell the cost beforehand"
    )
    group.add_argument("--dry-run", action="store_true", help="tell what would be asked, and stop")
    group.add_argument("--yes", action="store_true", help="do not ask before paying, or before faces leave the machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
