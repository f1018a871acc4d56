"""The commands ``semanticface annotate`` and ``semanticface choices``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.cli.output import warn
from semanticface.cli.signals import handle_signals
from semanticface.errors import SemanticFaceError

if TYPE_CHECKING:
    from semanticface.preference.files import Candidates
    from semanticface.preference.regions import Region
    from semanticface.preference.session import Session
    from semanticface.preference.types import CandidateSet

_DATABASE = "choices.sqlite"
_MAX_PRINTED = 10  # errors printed one by one


def add_commands(commands: Subparsers) -> None:
    """Add the two subcommands."""
    _add_annotate(commands)
    _add_choices(commands)


def _add_annotate(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "annotate",
        "choose which of two rendered faces is nearer to a picture",
        "Serves a page to your browser, on this machine only: a picture and two renders of one neutral head that\n"
        "differ in expression. Choose with the arrow keys; ? shows all keys. CANDIDATES is the candidates.jsonl\n"
        "that semanticface prefer wrote, --dataset the folder of faces that it was sampled for.\n\n"
        "Every choice is stored as you make it. Stop with Ctrl-C at any time; the same command resumes. Several\n"
        "annotators can share one database, each under a pseudonym, at the same time. Some questions go to all of\n"
        "them (--overlap) and some come twice (--repeats, --mirrored), so that `semanticface choices` can report\n"
        "how reliable the choices are.\n\n"
        "Faces that this project rendered can always be shown. A real person is only shown if DATASET/consent.yaml\n"
        "allows it:\n\n"
        "  subjects:\n    ann:\n      reference: form signed on 2026-03-14, binder 7\n      uses: [train, show]",
        "semanticface annotate outputs/run/round-1/candidates.jsonl --dataset outputs/faces --annotator robin",
        "semanticface annotate candidates.jsonl --dataset faces --annotator kim --regions lower --database all.sqlite",
        "semanticface choices outputs/run/round-1/choices.sqlite --export choices.jsonl",
    )
    parser.add_argument("candidates", type=Path, metavar="CANDIDATES", help="candidates.jsonl")
    parser.add_argument("--dataset", type=Path, required=True, metavar="FOLDER", help="the faces they were sampled for")
    parser.add_argument("--annotator", required=True, metavar="NAME", help="a pseudonym, stored with every choice")
    parser.add_argument(
        "--database", type=Path, metavar="X.sqlite", help=f"where choices go (default: {_DATABASE} beside CANDIDATES)"
    )
    parser.add_argument(
        "--regions",
        type=_regions,
        default=("upper", "lower"),
        metavar="A,B",
        help="judged regions: upper, lower, whole (default: upper,lower)",
    )
    parser.add_argument(
        "--per-picture",
        type=arguments.positive,
        default=4,
        metavar="N",
        help="most questions about a picture (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap",
        type=arguments.share,
        default=0.2,
        metavar="X",
        help="proportion for every annotator (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=arguments.share,
        default=0.05,
        metavar="X",
        help="proportion asked again (default: %(default)s)",
    )
    parser.add_argument(
        "--mirrored",
        type=arguments.share,
        default=0.05,
        metavar="X",
        help="proportion asked again with sides swapped (default: %(default)s)",
    )
    parser.add_argument(
        "--size", type=arguments.size, default=640, help="side of the pictures in pixels (default: %(default)s)"
    )
    parser.add_argument("--port", type=arguments.port, default=7861, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        help="of pairs, sides and order; the same for all annotators (default: %(default)s)",
    )
    parser.set_defaults(run=_annotate)


def _add_choices(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "choices",
        "report, export or import what annotators chose",
        "Without options it reports, for each annotator and region: how many choices name a side, how often\n"
        "the answer is the same when a question is repeated or mirrored, and position bias; and for each two\n"
        "annotators how far they agree.\n\n"
        "JSONL holds one choice per line: the question, the verdict (a, b, same, neither, skip), annotator, model,\n"
        "round and time. Undone choices are not exported. Importing a file twice changes nothing; a choice that\n"
        "contradicts one in the database is reported and left out.",
        "semanticface choices choices.sqlite",
        "semanticface choices choices.sqlite --export choices.jsonl",
        "semanticface choices all.sqlite --import robin.jsonl",
    )
    parser.add_argument("database", type=Path, metavar="DATABASE", help="the file that annotate wrote")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--export", type=Path, metavar="X.jsonl", help="write all standing choices")
    what.add_argument("--import", type=Path, metavar="X.jsonl", dest="source", help="add choices; creates DATABASE")
    parser.set_defaults(run=_choices)


def _annotate(options: argparse.Namespace) -> int:
    from semanticface.preference.files import check_pseudonym
    from semanticface.preference.store import Store
    from semanticface.serving.pages.annotate import check_installed, serve

    check_installed()
    check_pseudonym(options.annotator)
    if options.repeats + options.mirrored > 0.5:
        raise SemanticFaceError("--repeats and --mirrored together are more than half of the questions. Lower them.")
    database = options.database or options.candidates.parent / _DATABASE
    with Store(database) as store:
        session = _session(options, store)
        stop = threading.Event()
        with contextlib.closing(session), handle_signals(lambda *_: stop.set()):
            print(f"Choices go to {database}.")
            serve(session, port=options.port, ready=_ready, stop=stop)
        progress = session.progress()
    print(f"\n{progress.done} questions answered by {options.annotator}, {progress.left} left. All choices are stored.")
    return 0


def _ready(url: str) -> None:
    print(f"Open {url} in your browser. Ctrl-C stops; nothing is lost.", flush=True)


def _session(options: argparse.Namespace, store: object) -> Session:
    """Return a session, and print what cannot be shown and why."""
    from semanticface.data.faces import load_faces
    from semanticface.preference.files import check_header, read_candidates
    from semanticface.preference.question_images import QuestionRenderer
    from semanticface.preference.questions import make_questions
    from semanticface.preference.session import Session
    from semanticface.preference.store import Store

    assert isinstance(store, Store)
    candidates = read_candidates(options.candidates)
    faces = load_faces(options.dataset, candidates.header.split)
    check_header(candidates.header, options.candidates, dataset=faces._fingerprint)
    _warn_all(candidates.problems)
    candidate_sets = _permitted(options.dataset, candidates)
    questions = make_questions(
        candidate_sets,
        options.regions,
        per_picture=options.per_picture,
        repeats=options.repeats,
        mirrored=options.mirrored,
        seed=options.seed,
    )
    if not questions:
        raise SemanticFaceError(
            f"{options.candidates}: no two candidates of a picture can be told apart in "
            f"{' or '.join(options.regions)}. Sample with a higher temperature, or judge another region."
        )
    return Session(
        store,
        questions,
        QuestionRenderer(faces, {each.picture: each for each in candidate_sets}, options.size),
        annotator=options.annotator,
        model=candidates.header.model,
        round=candidates.header.round,
        overlap=options.overlap,
        on_error=lambda error: print(f"semanticface: {error} Skipped.", file=sys.stderr, flush=True),
    )


def _permitted(dataset: Path, candidates: Candidates) -> list[CandidateSet]:
    """Return the candidate sets that consent allows; print the number of others."""
    from semanticface.data.consent import NAME, read_consent
    from semanticface.preference.files import split_by_consent

    allowed, hidden = split_by_consent(read_consent(dataset), candidates.candidate_sets)
    total = len(candidates.candidate_sets)
    if not allowed:
        raise SemanticFaceError(
            f"{dataset}: none of {total} pictures may be shown. List who agreed in {dataset / NAME}; "
            "see semanticface annotate --help."
        )
    if hidden:
        people = f"{len(hidden)} subject{'' if len(hidden) == 1 else 's'}"
        print(
            f"{total - len(allowed)} of {total} pictures are not shown: {people} without consent in {dataset / NAME}.",
            file=sys.stderr,
        )
    return allowed


def _choices(options: argparse.Namespace) -> int:
    from semanticface.preference.annotator_agreement import format_report, report
    from semanticface.preference.files import read_choices, write_choices
    from semanticface.preference.store import Store

    if options.export is not None and options.export.suffix.lower() != ".jsonl":
        raise SemanticFaceError(f"{options.export}: choices are written as JSONL. Use a name that ends in .jsonl.")
    if options.source is not None:
        good, bad = read_choices(options.source)
        _warn_all(bad)
        with Store(options.database) as store:
            result = store.add_many(choice for _, choice in good)
        differing = [
            f"{options.source}, line {good[index][0]}: {good[index][1].annotator} answered this question differently "
            f"in {options.database}. That answer stays."
            for index in result.differing
        ]
        _warn_all(differing)
        print(f"{options.database}: {result.added} choices added, {result.known} known already")
        return 1 if bad or differing else 0
    with Store(options.database, create=False) as store:
        choices = store.choices()
        if options.export is None:
            print(format_report(report(choices)))
            print(f"\n{len(choices)} choices, and {store.withdrawn()} undone.")
        else:
            print(f"{options.export}: {write_choices(options.export, choices)} choices")
    return 0


def _warn_all(problems: Sequence[str]) -> None:
    for problem in problems[:_MAX_PRINTED]:
        warn(problem)
    if len(problems) > _MAX_PRINTED:
        warn(f"and {len(problems) - _MAX_PRINTED} more")


def _regions(text: str) -> tuple[Region, ...]:
    """Parse a list of regions."""
    from semanticface.preference.regions import REGIONS

    named = text.split(",")
    found = tuple(region for region in REGIONS if region in named)
    if len(found) != len(named):
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of some of {', '.join(REGIONS)}")
    return found
