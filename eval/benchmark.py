"""Evaluate a model on rendered faces with exact labels, and on people, next to constant predictors and MediaPipe.

    python eval/benchmark.py                                                  # nano, 500 pictures per set; ten minutes
    python eval/benchmark.py --quick                                          # 100 pictures per set
    python eval/benchmark.py --model outputs/adapter --mediapipe face_landmarker.task --take alex_rom_3.csv
    python eval/benchmark.py --mediapipe face_landmarker.task --people portraits

The sets, best evidence first:

* ``foreign``: a head of another maker (``semanticface.evaluation.foreign_head``) with expressions like a real take's;
  300 pictures, 60 with ``--quick``. Nothing is trained on it or tuned to it. 51 actions: its tongue does not move;
* ``take``: our photo style with such expressions;
* ``photo``, ``toon``, ``drawn``, and the photo style under hard conditions (``shifted``): our own expressions.

Our sets have 500 portraits of 512 px each, of people from number 8,000,000 on, almost every picture another person.
Training sets number their people from 0, the face detector's from 5,000,000. Every method gets the whole portrait and
detects the face itself, as in use. The pictures are rendered once and kept, also after an interruption; a new renderer
version renders them again.

The expressions of ``foreign`` and ``take`` have the statistics of a real take (eval/data/take.npz, which
data_prep/assets/build_take.py makes): ``anim/alex_rom_3.csv`` of
github.com/alexdjulin/LiveLinkFace-CSV-Retarget-For-Motionbuilder. ``--take`` names a Live Link Face recording whose own
rows are shown instead. Of ten contiguous blocks of rows, those numbered 2, 5 and 8, counted from 0, are measured; the
others may be trained on.

Three hundred more pictures (60 with ``--quick``) show unseen people in the photo style without expression: every
coefficient is 0. ``rest_false_rate`` is the share of all numbers, 52 of each picture in which a face is found, that the
model answers above 0.15 there.

``--people`` is a folder with photographs of faces, one each, such as official portraits; it needs ``--mediapipe``.
``semanticface.evaluation.people`` says what is measured: what fires on faces that MediaPipe calls still, the mean
vertical gaze, and the agreement with MediaPipe where it can be believed. ``--quick`` takes 150 pictures, evenly spaced
by name, and still faces from all. No name, picture or answer of these people is written anywhere.

Rotations of head and eyes are scored in degrees, of models that predict them, on the pictures with an answer. Of
MediaPipe, the head's are its transformation matrix's, the eyes' those that its gaze actions stand for. Another set
(``gaze``, as many pictures as *foreign*) tells pose and gaze apart, see ``semanticface.evaluation.pose``: is the gaze
read as well on turned heads that look at the camera as on frontal ones?

All 52 actions are scored, and MediaPipe's 51 when it runs. A picture in which a method finds no face counts as its own
mean answer over the other pictures (see ``semanticface.evaluation.benchmark``). The share of faces detected is a figure
of its own, and one table covers the pictures in which every method found a face. Intervals are 95 % bootstrap intervals
over people; on the one foreign head and on photographs, over pictures.

MediaPipe needs ``pip install -c constraints.txt mediapipe`` and the ``face_landmarker.task`` that its users download.
It processes 140 pictures per second; its answers are kept, so it runs once. Version 1.2.2 contacts a server of its
maker (usage statistics); ``unshare -rn python eval/benchmark.py …`` runs everything without a network.

Writes into ``--out``/MODEL-MODE-READOUT: ``benchmark.json``, ``benchmark.md``, ``index.html`` (the tables, and the
worst and some typical pictures of each set) and the answers, ``SET.jsonl``. ``--publish`` also copies the results to
eval/results/benchmark.json and regenerates the figures that documents show from it (see
``semanticface.evaluation.published``).

The last line of output is a JSON object: ``foreign_corr``, ``foreign_mae``, ``take_corr``, ``take_mae``,
``photo_corr``, ``photo_mae``, ``toon_corr``, ``drawn_corr``, ``shifted_corr``, ``rest_false_rate``; ``head_degrees``,
``gaze_degrees`` (*photo*), ``head_degrees_foreign``, ``gaze_degrees_foreign``, null for a model without rotations;
``gaze_mae_turned`` and ``gaze_mae_frontal``; all these with ``_mediapipe`` if it ran; ``own_words_hold``,
``words_true_photo`` and ``words_true_foreign``, the shares of the claims in the analyses that hold for their own
numbers (in the worst set) and for the ground truth, with ``--mode full``; ``median_mae_gain`` and
``interval_coverage``; with people ``people_agreement``, ``people_rest_false_rate``, ``people_gaze_up`` and the last two
with ``_mediapipe``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.cli.scripts import ScriptParser
from semanticface.config import check_range
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.data.importers.mediapipe import ACTIONS, FaceLandmarker, identity
from semanticface.data.rendered import renderer_hash
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.evaluation import metrics, people, pose, published, report
from semanticface.evaluation.benchmark import (
    FOREIGN,
    HOME,
    LABELS_FOR_CONSTANTS,
    MODEL,
    PEER,
    ROWS,
    SEED,
    SETS,
    SIZE,
    TAKE,
    MethodAnswers,
    constant_answers,
    false_rates,
    headline,
    held_out_expressions,
    largest_errors,
    modelled_expressions,
    render_benchmark_set,
    render_expressions,
    score_set,
    worst_and_typical,
)
from semanticface.evaluation.foreign_head import UNSCORED, ForeignHead
from semanticface.formats import recording, tables
from semanticface.formats.recording import RecordedFrame
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.models.files import resolve_model
from semanticface.recipe import files_sha256, git_commit, versions
from semanticface.utils.files import atomic_open, write_json
from semanticface.utils.html import Table, TableSection, write_page
from semanticface.utils.progress import tqdm
from semanticface.vision.image_io import load_picture

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "eval" / "results" / "benchmark.json"
DATA = ROOT / "eval" / "data"
QUICK_ROWS = 100
FEWER = 3 / 5
"""Pictures of the foreign head, and of faces at rest, for each one of the other sets."""
QUICK_PEOPLE = 150
REST, GAZE = "rest", "gaze"
WORST, TYPICAL = 6, 4
TITLE = "Benchmark"


@dataclasses.dataclass(frozen=True)
class PeerAnswers:
    """MediaPipe's answers for a set: coefficients float[N, 52] and pose float[N, 9], NaN rows if it finds no face."""

    coefficients: np.ndarray
    pose: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scored:
    """One set: its rows, the model's predictions, and the figures."""

    faces: Any
    predictions: list[Prediction]
    peer: PeerAnswers | None
    result: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = _options(arguments)
    try:
        results, folder = benchmark(options)
    except SemanticFaceError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: interrupted; the pictures rendered so far are kept", file=sys.stderr)
        return 130
    shown = [published.summary(results), published.readout_table(results), published.pose_table(results)]
    print("\n" + "\n\n".join(table.markdown() for table in (*shown, *_words(results))))
    print(f"\n{folder / 'index.html'}\n")
    print(json.dumps(results["headline"]))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--model", default="nano", help='"nano", a model or adapter folder, or a Hub id (%(default)s)')
    parser.add_argument(
        "--mode", choices=("full", "numbers"), default="full", help="numbers: no analysis, as for video (%(default)s)"
    )
    parser.add_argument(
        "--readout", choices=("greedy", "mean", "median"), help="how numbers are read (default: the model's own)"
    )
    parser.add_argument("--mediapipe", type=Path, metavar="TASK", help="its face_landmarker.task: evaluate it too")
    parser.add_argument(
        "--take",
        type=Path,
        metavar="CSV",
        help="recording with the expressions of foreign and take (default: expressions with a real take's statistics)",
    )
    parser.add_argument("--people", type=Path, metavar="FOLDER", help="photographs of faces; needs --mediapipe")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} pictures per set instead of {ROWS}")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/benchmark"), help="folder for pictures and results (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures per batch (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="rendering processes (default: all cores)"
    )
    parser.add_argument("--device", help="cpu, cuda, … (default: the best available)")
    parser.add_argument("--publish", action="store_true", help="update eval/results/benchmark.json and the documents")
    options = parser.parse_args(arguments)
    if options.publish and options.quick:
        parser.error("--publish needs the whole sets: leave out --quick")
    if options.people is not None and options.mediapipe is None:
        parser.error("--people compares with MediaPipe: give --mediapipe face_landmarker.task")
    return options


def benchmark(options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Render, predict, score and write; return the results and their folder."""
    check_range("batch-size", options.batch_size, 1)
    peer = None if options.mediapipe is None else identity(options.mediapipe)
    weights, _ = resolve_model(options.model)
    portraits = [] if options.people is None else people.portraits(options.people)
    folders = _folders(options)
    predictor = Predictor.from_pretrained(
        options.model, device=options.device, mode=options.mode, readout=options.readout
    )
    readout = predictor.engine.decoder.readout
    mean, median = constant_answers(LABELS_FOR_CONSTANTS)
    name = Path(options.model).name
    out = options.out / "-".join([name, options.mode, readout, *(["quick"] if options.quick else [])])
    sets, rest, gaze = {}, {}, {}
    for key, folder in folders.items():
        faces = load_faces(folder, "test")
        answered = None if peer is None else _peer_answers(faces, folder, peer, options)
        if key == REST:
            rest = _score_rest(faces, predictor, answered, options, out)
        elif key == GAZE:
            methods = _coefficients(_predict(GAZE, faces, predictor, options, out), answered)
            gaze = pose.gaze_errors(coefficients_of(faces), methods, seed=SEED)
        else:
            sets[key] = _score(key, faces, predictor, answered, mean, median, options, out)
    scored = {key: each.result for key, each in sets.items()}
    results: dict[str, Any] = {
        "headline": headline(scored, rest) | _pose_headline(scored, gaze, peer is not None),
        "sets": scored,
        "rest": rest,
        "gaze": gaze,
        "recipe": {
            "command": _command(options),
            "model": name,
            "weights": files_sha256(list(weights.glob("*.safetensors"))),
            "mode": options.mode,
            "readout": readout,
            "renderer": renderer_hash(),
            "commit": git_commit(),
            "versions": versions(),
        },
    }
    if peer is not None:
        results["recipe"]["mediapipe"] = peer
    if options.take is not None:
        results["recipe"]["take"] = files_sha256([options.take])
    if portraits:
        results["people"] = _score_people(portraits, predictor, options)
        results["headline"] |= people.headline(results["people"])
    _write(out, results, sets)
    if options.publish:
        _publish(results)
    return results, out


def _folders(options: argparse.Namespace) -> dict[str, Path]:
    """Return the folders of the sets and of the faces at rest, rendered if missing."""
    rows = QUICK_ROWS if options.quick else ROWS
    fewer = round(rows * FEWER)
    pictures = options.out / "pictures"
    out = {}
    if options.take is None:
        expressions = modelled_expressions(DATA / "take.npz", rows)
    else:
        expressions = held_out_expressions(options.take)
    shown = expressions[:fewer].copy()
    shown[:, [arkit.INDEX[name] for name in UNSCORED]] = 0
    out[FOREIGN] = render_expressions(pictures, FOREIGN, shown, size=SIZE, head=ForeignHead(DATA))
    out[TAKE] = render_expressions(pictures, TAKE, expressions[:rows], size=SIZE)
    for key in HOME:
        out[key] = render_benchmark_set(pictures, key, rows, size=SIZE, workers=options.workers)
    looking, shots = pose.gaze_pairs(expressions[:fewer], SEED)
    out[GAZE] = render_expressions(pictures, GAZE, looking, size=SIZE, shots=shots)
    out[REST] = render_expressions(pictures, REST, np.zeros((fewer, arkit.N_ACTIONS), np.float32), size=SIZE)
    return out


def _command(options: argparse.Namespace) -> str:
    """Return the command without this machine's paths."""
    parts = ["python", "eval/benchmark.py"]
    if options.model != "nano":
        parts += ["--model", Path(options.model).name]
    if options.mode != "full":
        parts += ["--mode", options.mode]
    if options.readout is not None:
        parts += ["--readout", options.readout]
    if options.mediapipe is not None:
        parts += ["--mediapipe", options.mediapipe.name]
    if options.take is not None:
        parts += ["--take", options.take.name]
    if options.people is not None:
        parts += ["--people", options.people.name]
    return shlex.join([*parts, *(["--quick"] if options.quick else [])])


def _peer_answers(faces: Any, folder: Path, peer: dict[str, str], options: argparse.Namespace) -> PeerAnswers:
    """Return MediaPipe's answers; they are cached in a file."""
    path = folder.with_name(f"{folder.name}-mediapipe-pose-{peer['version']}-{peer['sha256'][:8]}.jsonl")
    if not path.is_file():
        bar = tqdm(faces.select_columns("picture"), desc=f"{PEER}: {folder.name}", unit="picture")
        with FaceLandmarker(options.mediapipe) as landmarker:
            found = [landmarker.measure(load_picture(row["picture"])) for row in bar]
        tables.write(
            path,
            [
                tables.RowResult(f"test/{i}", "no_face", "MediaPipe finds no face")
                if each is None
                else tables.RowResult(f"test/{i}", coefficients=each.coefficients, pose=each.pose)
                for i, each in enumerate(found)
            ],
        )
    rows = list(recording.read(path))
    if len(rows) != len(faces):
        raise ConfigError(f"{path} has {len(rows)} answers for {len(faces)} pictures: remove it and run again.")
    return PeerAnswers(metrics.stacked(row.coefficients for row in rows), _poses(rows))


def _poses(answers: Sequence[Prediction | RecordedFrame]) -> np.ndarray:
    """Return the poses of answers, float64[N, 9]; NaN rows without one."""
    unknown = np.full(arkit.N_POSE, np.nan)
    return np.array([unknown if each.pose is None else each.pose for each in answers], np.float64)


def _coefficients(predictions: Sequence[Prediction], peer: PeerAnswers | None) -> dict[str, np.ndarray]:
    """Return the coefficients by method, float[N, 52]; NaN rows without an answer."""
    own = {MODEL: metrics.stacked(each.coefficients for each in predictions)}
    return own if peer is None else own | {PEER: peer.coefficients}


def _pose_headline(sets: dict[str, Any], gaze: dict[str, Any], with_peer: bool) -> dict[str, Any]:
    suffixes = {"": sets["photo"]["pose"], "_foreign": sets[FOREIGN]["pose"]}
    return pose.pose_headline(suffixes, gaze, {MODEL: ""} | ({PEER: f"_{PEER}"} if with_peer else {}))


def _score(
    key: str,
    faces: Any,
    predictor: Predictor,
    peer: PeerAnswers | None,
    mean: np.ndarray,
    median: np.ndarray,
    options: argparse.Namespace,
    out: Path,
) -> Scored:
    """Predict and score a set; the answers are written too."""
    true = coefficients_of(faces)
    predictions = _predict(key, faces, predictor, options, out)
    analyses = [each.analysis for each in predictions] if options.mode == "full" else None
    methods = {MODEL: MethodAnswers(metrics.stacked(each.coefficients for each in predictions), analyses=analyses)}
    if peer is not None:
        methods[PEER] = MethodAnswers(peer.coefficients, actions=ACTIONS)
    summaries = [each.summary for each in predictions]
    shown = [name for name in arkit.NAMES if key != FOREIGN or name not in UNSCORED]
    result = score_set(
        true, faces["subject"], methods, mean=mean, median=median, summaries=summaries, scored=shown, seed=SEED
    )
    poses = {MODEL: _poses(predictions)} | ({} if peer is None else {PEER: peer.pose})
    result["pose"] = pose.pose_errors(np.array(faces["pose"][:]), poses, faces["subject"], seed=SEED)
    return Scored(faces, predictions, peer, result)


def _predict(key: str, faces: Any, predictor: Predictor, options: argparse.Namespace, out: Path) -> list[Prediction]:
    """Return the model's predictions for a set, which are written too."""
    stream = predictor.stream(_pictures(key, faces), batch_size=options.batch_size)
    predictions = list(tqdm(stream, desc=f"{Path(options.model).name}: {key}", total=len(faces), unit="picture"))
    tables.write(out / f"{key}.jsonl", predictions)
    return predictions


def _score_rest(
    faces: Any, predictor: Predictor, peer: PeerAnswers | None, options: argparse.Namespace, out: Path
) -> dict[str, Any]:
    """Predict faces at rest and count what fires."""
    answers = _coefficients(_predict(REST, faces, predictor, options, out), peer)
    return false_rates(answers, faces["subject"], actions={PEER: ACTIONS}, seed=SEED)


def _score_people(portraits: Sequence[Path], predictor: Predictor, options: argparse.Namespace) -> dict[str, Any]:
    """Predict photographs of people and compare with MediaPipe; nothing of them is written."""
    sample = np.ones(len(portraits), bool)
    if options.quick and len(portraits) > QUICK_PEOPLE:
        sample[:] = False
        sample[np.linspace(0, len(portraits) - 1, QUICK_PEOPLE).round().astype(int)] = True
    with FaceLandmarker(options.mediapipe) as landmarker:
        bar = tqdm(portraits, desc=f"{PEER}: people", unit="picture")
        peer = metrics.stacked(landmarker.read(load_picture(path)) for path in bar)
    wanted = np.flatnonzero(sample | people.still_faces(peer))
    stream = predictor.stream((portraits[i] for i in wanted), batch_size=options.batch_size)
    bar = tqdm(stream, desc=f"{Path(options.model).name}: people", total=len(wanted), unit="picture")
    model = np.full_like(peer, np.nan)
    model[wanted] = metrics.stacked(each.coefficients for each in bar)
    return people.score_people(model, peer, sample, seed=SEED)


def _pictures(key: str, faces: Any) -> Iterator[Image.Image]:
    """Yield a set's pictures, with the names that answers, errors and cards use."""
    for i, row in enumerate(faces.select_columns("picture")):
        row["picture"].filename = f"{key}/{i}"
        yield row["picture"]


def _write(out: Path, results: dict[str, Any], sets: dict[str, Scored]) -> None:
    """Write the results as JSON, Markdown and HTML."""
    write_json(out / "benchmark.json", results, compact=True)
    parts = [f"# {TITLE}", published.how(results), published.summary(results).markdown()]
    parts += [published.readout_table(results).markdown(), published.rest_table(results).markdown()]
    parts.append(published.pose_table(results).markdown())
    parts += [table.markdown() for table in _words(results)]
    if "people" in results:
        parts += ["## people", *(table.markdown() for table in published.people_tables(results))]
    for key in results["sets"]:
        parts += [f"## {key}: {SETS[key]}", *(table.markdown() for table in published.scope_tables(results, key))]
        parts.append(published.actions_table(results, key).markdown())
    with atomic_open(out / "benchmark.md") as file:
        file.write("\n\n".join(parts) + "\n")
    recipe = results["recipe"]
    facts = {
        "model": f"{recipe['model']}, weights {recipe['weights'][:8]}",
        "mode": recipe["mode"],
        "readout": recipe["readout"],
    }
    facts |= {"command": recipe["command"]} | ({"commit": recipe["commit"]} if recipe["commit"] else {})
    write_page(out / "index.html", TITLE, _sections(results, sets), recipe=facts)


def _words(results: dict[str, Any]) -> list[Table]:
    """Return the table of the words, if the model has written any."""
    return [published.words_table(results)] if results["recipe"]["mode"] == "full" else []


def _sections(results: dict[str, Any], sets: dict[str, Scored]) -> Iterator[TableSection | report.Samples]:
    summary = [published.summary(results), published.readout_table(results), published.rest_table(results)]
    summary.append(published.pose_table(results))
    summary += _words(results)
    yield TableSection("Summary", summary, published.plain(published.how(results)))
    if "people" in results:
        yield TableSection("People", published.people_tables(results))
    for key, scored in sets.items():
        figures = [*published.scope_tables(results, key), published.actions_table(results, key)]
        yield TableSection(f"{key}: figures", figures, SETS[key])
        true = coefficients_of(scored.faces)
        errors = np.abs(metrics.stacked(each.coefficients for each in scored.predictions) - true).mean(axis=1)
        worst, typical = worst_and_typical(errors, max(WORST, TYPICAL))
        intro = "No answer, or the largest mean error."
        yield report.Samples(f"{key}: the worst", _cards(scored, true, errors, worst[:WORST]), intro)
        intro = f"A mean error near the median, {np.nanmedian(errors):.3f}."
        yield report.Samples(f"{key}: typical", _cards(scored, true, errors, typical[:TYPICAL]), intro)


def _cards(scored: Scored, true: np.ndarray, errors: np.ndarray, rows: np.ndarray) -> Iterator[report.Sample]:
    for i in rows.tolist():
        predicted = scored.predictions[i]
        note = (
            ""
            if predicted.coefficients is None
            else f"Largest errors: {largest_errors(true[i], predicted.coefficients)}. "
        )
        if scored.peer is not None:
            error = np.abs(scored.peer.coefficients[i] - true[i])[[arkit.INDEX[name] for name in ACTIONS]].mean()
            note += "MediaPipe finds no face." if np.isnan(error) else f"MediaPipe's mean error: {error:.3f}."
        yield report.Sample(
            predicted.image,
            load_picture(scored.faces[i]["picture"]),
            predicted.coefficients,
            predicted.analysis,
            truth=true[i],
            interval=predicted.interval,
            box=predicted.box,
            chip="" if np.isnan(errors[i]) else f"mean error {errors[i]:.3f}",
            reason=predicted.reason,
            note=" ".join(filter(None, (note, predicted.note))),
        )


def _publish(results: dict[str, Any]) -> None:
    """Update the committed results and the marked figures of every document."""
    write_json(PUBLISHED, results, compact=True)
    for path in published.documents(ROOT):
        text = path.read_text(encoding="utf-8")
        filled = published.fill(text, results)
        if filled != text:
            with atomic_open(path) as file:
                file.write(filled)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
