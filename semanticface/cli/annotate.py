"""What ``semanticface annotate`` and ``choices`` do: their options, their checks, what they tell."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semanticface.cli import arguments
from semanticface.cli.arguments import Subparsers, add_command
from semanticface.errors import SemanticFaceError

if TYPE_CHECKING:
    from semanticface.preference.files import Candidates
    from semanticface.preference.regions import Area
    from semanticface.preference.session import Session
    from semanticface.preference.types import CandidateSet

_DATABASE = "choices.sqlite"
_NAMED = 10  # problems named one by one


def add_commands(commands: Subparsers) -> None:
    """Add the subcommands; ``command`` makes one with its name, purpose, explanation and examples."""
    _add_annotate(commands)
    _add_choices(commands)


def _add_annotate(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "annotate",
        "choose which of two rendered faces is nearer to a picture",
        "Serves a page to your browser, on this machine alone: a picture, and beside it two renders of one plain head\n"
        "that differ in expression. Choose with the arrow keys; ? shows all keys. CANDIDATES is the candidates.jsonl\n"
        "that train/prefer.py wrote, --dataset the folder of faces that it was sampled for.\n\n"
        "Every choice is stored the moment it is made. Stop with Ctrl-C whenever you like; the same command goes on\n"
        "where you were. Several annotators can work on one database, each under a pseudonym, at the same time. Some\n"
        "questions are put to all of them (--overlap) and some come twice (--repeats, --mirrored), so that\n"
        "`semanticface choices` can say how far the choices can be relied on.\n\n"
        "Faces that this project rendered can always be shown. A real person is only shown if DATASET/consent.yaml\n"
        "says so:\n\n"
        "  subjects:\n    ann: true\n    ben: {until: 2027-12-31}",
        "semanticface annotate outputs/run/round-1/candidates.jsonl --dataset outputs/faces --annotator robin",
        "semanticface annotate candidates.jsonl --dataset faces --annotator kim --areas lower --database all.sqlite",
        "semanticface choices outputs/run/round-1/choices.sqlite --export choices.jsonl",
    )
    parser.add_argument("candidates", type=Path, metavar="CANDIDATES", help="candidates.jsonl")
    parser.add_argument("--dataset", type=Path, required=True, metavar="FOLDER", help="the faces they were sampled for")
    parser.add_argument("--annotator", required=True, metavar="NAME", help="a pseudonym, stored with every choice")
    parser.add_argument(
        "--database", type=Path, metavar="X.sqlite", help=f"where choices go (default: {_DATABASE} beside CANDIDATES)"
    )
    parser.add_argument(
        "--areas",
        type=_areas,
        default=("upper", "lower"),
        metavar="A,B",
        help="what is judged: upper, lower, whole (default: upper,lower)",
    )
    parser.add_argument(
        "--per-picture",
        type=arguments.positive,
        default=4,
        metavar="N",
        help="questions about a picture at most (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap", type=_share, default=0.2, metavar="X", help="share put to every annotator (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=_share, default=0.05, metavar="X", help="share asked again (default: %(default)s)"
    )
    parser.add_argument(
        "--mirrored",
        type=_share,
        default=0.05,
        metavar="X",
        help="share asked again with sides swapped (default: %(default)s)",
    )
    parser.add_argument(
        "--size", type=arguments.size, default=640, help="side of the pictures in pixels (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=7860, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        help="draws pairs, sides and order; the same for all annotators (default: %(default)s)",
    )
    parser.set_defaults(run=_annotate)


def _add_choices(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "choices",
        "report, export or import what annotators chose",
        "Without options it reports, for each annotator and area: how many choices name a side, how often the answer\n"
        "is the same when a question comes again or mirrored, whether one side of the screen is favoured; and for\n"
        "each two annotators how far they agree where both answered.\n\n"
        "JSONL holds one choice a line: the question, the verdict (a, b, same, neither, skip), annotator, model,\n"
        "round and time. Choices that were taken back are not exported. Importing the same file twice changes\n"
        "nothing; a choice that contradicts one in the database is named and left out.",
        "semanticface choices choices.sqlite",
        "semanticface choices choices.sqlite --export choices.jsonl",
        "semanticface choices all.sqlite --import robin.jsonl",
    )
    parser.add_argument("database", type=Path, metavar="DATABASE", help="the file that annotate wrote")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--export", type=Path, metavar="X.jsonl", help="write all standing choices")
    what.add_argument("--import", type=Path, metavar="X.jsonl", dest="brought", help="add choices; makes DATABASE")
    parser.set_defaults(run=_choices)


def _annotate(options: argparse.Namespace) -> int:
    from semanticface.preference.files import check_pseudonym
    from semanticface.preference.store import Store
    from semanticface.serving.pages.annotate import check_installed, serve

    check_installed()
    check_pseudonym(options.annotator)
    if options.repeats + options.mirrored > 0.5:
        raise SemanticFaceError("--repeats and --mirrored are more than half of the questions together. Lower them.")
    database = options.database or options.candidates.parent / _DATABASE
    with Store(database) as store:
        session = _session(options, store)
        stop = threading.Event()
        before = {which: signal.signal(which, lambda *_: stop.set()) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            print(f"Choices go to {database}.")
            serve(session, port=options.port, ready=_ready, stop=stop)
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)
            session.close()
        progress = session.progress()
    print(f"\n{progress.done} questions answered by {options.annotator}, {progress.left} left. Everything is stored.")
    return 0


def _ready(url: str) -> None:
    print(f"Open {url} in your browser. Ctrl-C stops; nothing is lost.", flush=True)


def _session(options: argparse.Namespace, store: object) -> Session:
    """Put a session together, and say what cannot be shown and why."""
    from semanticface.data.faces import load_faces
    from semanticface.preference.files import check_header, read_candidates
    from semanticface.preference.question_images import QuestionRenderer
    from semanticface.preference.questions import ask
    from semanticface.preference.session import Session
    from semanticface.preference.store import Store

    assert isinstance(store, Store)
    candidates = read_candidates(options.candidates)
    faces = load_faces(options.dataset, candidates.header.split)
    check_header(candidates.header, options.candidates, dataset=faces._fingerprint)
    _tell(candidates.problems)
    slates = _permitted(options.dataset, candidates)
    questions = ask(
        slates,
        options.areas,
        per_picture=options.per_picture,
        repeats=options.repeats,
        mirrored=options.mirrored,
        seed=options.seed,
    )
    if not questions:
        raise SemanticFaceError(
            f"{options.candidates}: no two candidates of a picture can be told apart in {' or '.join(options.areas)}. "
            "Sample with a higher temperature, or judge another area."
        )
    return Session(
        store,
        questions,
        QuestionRenderer(faces, {slate.picture: slate for slate in slates}, options.size),
        annotator=options.annotator,
        model=candidates.header.model,
        round=candidates.header.round,
        overlap=options.overlap,
        complain=lambda problem: print(f"semanticface: {problem} Not asked about.", file=sys.stderr, flush=True),
    )


def _permitted(dataset: Path, candidates: Candidates) -> list[CandidateSet]:
    """Return the slates whose subjects may be shown; the others are counted."""
    from semanticface.data.consent import NAME, read_consent
    from semanticface.preference.files import split_by_consent

    shown, hidden = split_by_consent(read_consent(dataset), candidates.slates)
    total = len(candidates.slates)
    if not shown:
        raise SemanticFaceError(
            f"{dataset}: none of {total} pictures may be shown. Write who agreed into {dataset / NAME}; "
            "semanticface annotate --help says how."
        )
    if hidden:
        people = f"{len(hidden)} subject{'' if len(hidden) == 1 else 's'}"
        print(
            f"{total - len(shown)} of {total} pictures are not shown: {people} without consent in {dataset / NAME}.",
            file=sys.stderr,
        )
    return shown


def _choices(options: argparse.Namespace) -> int:
    from semanticface.preference.annotator_agreement import report, table
    from semanticface.preference.files import read_choices, write_choices
    from semanticface.preference.store import Store

    if options.export is not None and options.export.suffix.lower() != ".jsonl":
        raise SemanticFaceError(f"{options.export}: choices are written as JSONL. End its name in .jsonl.")
    if options.brought is not None:
        good, bad = read_choices(options.brought)
        _tell(bad)
        with Store(options.database) as store:
            done = store.add_many(choice for _, choice in good)
        differing = [
            f"{options.brought}, line {good[place][0]}: {good[place][1].annotator} answered this question otherwise in "
            f"{options.database}. That answer stays."
            for place in done.differing
        ]
        _tell(differing)
        print(f"{options.database}: {done.added} choices added, {done.known} were there already")
        return 1 if bad or differing else 0
    with Store(options.database, create=False) as store:
        choices = store.choices()
        if options.export is None:
            print(table(report(choices)))
            print(f"\n{len(choices)} choices stand, {store.withdrawn()} were taken back.")
        else:
            print(f"{options.export}: {write_choices(options.export, choices)} choices")
    return 0


def _tell(problems: Sequence[str]) -> None:
    for problem in problems[:_NAMED]:
        print(f"semanticface: {problem}", file=sys.stderr)
    if len(problems) > _NAMED:
        print(f"semanticface: and {len(problems) - _NAMED} more", file=sys.stderr)


def _areas(text: str) -> tuple[Area, ...]:
    """Read a list of areas."""
    from semanticface.preference.regions import AREAS

    named = text.split(",")
    found = tuple(area for area in AREAS if area in named)
    if len(found) != len(named):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list, without spaces, of some of {', '.join(AREAS)}")
    return found


def _share(text: str) -> float:
    """Read a share from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _port(text: str) -> int:
    """Read a port that needs no privileges."""
    if not text.isascii() or not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1024 to 65535")
    return int(text)
