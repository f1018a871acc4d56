"""Render a dataset of faces: rows from seeds, shards by workers, splits by subject.

Each row depends only on (seed, split, row number) and each shard is one file, so the bytes do not depend on the number
of workers, and an interrupted run resumes with the missing shards. A worker holds one shard's rows at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import PIL.Image

import semanticface
from semanticface import assets, rendering
from semanticface.config import check_range
from semanticface.data.faces import CAMERA_KEYS, recipe_of_kind, shard_path, split_at, write_index, write_shard
from semanticface.errors import ConfigError, DatasetError
from semanticface.recipe import RECIPE_NAME, files_sha256, git_commit
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import format_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.take_sampler import sample_like_takes
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm
from semanticface.vision.image_io import encode_jpeg

SHARD_ROWS = 250
"""Rows of a file at most; small datasets have smaller files, so that no worker runs idle."""
_MIN_SHARD_ROWS, _SHARDS = 20, 24
_RENDER_PACKAGES = ("numpy", "numba", "skia-python", "pillow")
_THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class RenderSettings:
    """Settings that decide every byte of a rendered dataset.

    Attributes:
        rows: of all splits together.
        looks: share of each style, by name; need not sum to 1.
        size: side of the pictures in pixels.
        supersample: samples per pixel and axis.
        families: share of people with a head of each family, by name (``rendering.FAMILIES``); need not sum to 1. A
            person's family depends only on their number and on these shares.
        vary_actions: whether every person carries out the actions a little differently; see ``rendering.render``.
        framing: ``portrait`` for a head somewhere in the frame, ``crop`` for the face's box, the input of a model.
        conditions: ``usual``, or ``hard`` for the shifted test set, never for training; see ``rendering.conditions``.
        splits: share of each split, by name, in the order in which they are written; need not sum to 1.
        subjects: number of different people. The split of a person depends only on their number and ``splits``, never
            on ``rows`` or ``seed``.
        first_subject: number of the first person; the others follow.
        subject: render only this person; the splits then hold out pictures, not people.
        only: write only this split, with all rows; its people are the same as when all splits are written.
        seed: of the rows.
        emotion: whether answers contain an emotional implication.
        take_share: share of expressions sampled like those of a recorded take
            (``semantics.take_sampler``); the others cover every action evenly.

    Raises:
        ConfigError: a value is out of range or unknown.
    """

    rows: int = 2000
    looks: dict[str, float] = dataclasses.field(default_factory=lambda: {"photo": 2.0, "toon": 1.0, "drawn": 1.0})
    size: int = 224
    supersample: int = 2
    families: dict[str, float] = dataclasses.field(default_factory=lambda: {"makehuman": 1.0})
    vary_actions: bool = False
    framing: Literal["portrait", "crop"] = "portrait"
    conditions: rendering.Conditions = "usual"
    splits: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"train": 0.96, "validation": 0.02, "test": 0.02}
    )
    subjects: int = 20_000
    first_subject: int = 0
    subject: int | None = None
    only: str | None = None
    seed: int = 0
    emotion: bool = True
    take_share: float = 0.5

    def __post_init__(self) -> None:
        check_range("rows", self.rows, 1)
        check_range("size", self.size, 32, 2048)
        check_range("supersample", self.supersample, 1, 4)
        check_range("subjects", self.subjects, 1, 10_000_000)
        check_range("first_subject", self.first_subject, 0, 10_000_000)
        check_range("seed", self.seed, 0)
        check_range("take_share", self.take_share, 0, 1)
        if self.subject is not None:
            check_range("subject", self.subject, 0)
        if self.framing not in ("portrait", "crop"):
            raise ConfigError(f"framing must be portrait or crop, not {self.framing!r}")
        if self.conditions not in rendering.CONDITIONS:
            raise ConfigError(f"conditions must be {' or '.join(rendering.CONDITIONS)}, not {self.conditions!r}")
        known = (*rendering.STYLES, rendering.HELD_OUT_STYLE)
        for style in self.looks:
            if style not in known:
                raise ConfigError(f"there is no style {style!r}; the styles are {', '.join(known)}")
        for family in self.families:
            if family not in rendering.FAMILIES:
                raise ConfigError(f"there is no family {family!r}; the families are {', '.join(rendering.FAMILIES)}")
        for split in self.splits:
            if not split.isidentifier():
                raise ConfigError(f"a split needs a plain name such as train, not {split!r}")
        if self.only is not None and self.only not in self.splits:
            raise ConfigError(f"there is no split {self.only!r}; the splits are {', '.join(self.splits)}")
        for what, shares in (("looks", self.looks), ("families", self.families), ("splits", self.splits)):
            if not shares or not all(np.isfinite(share) and share > 0 for share in shares.values()):
                raise ConfigError(f"{what} must be name=share pairs with shares above 0, not {shares}")


@functools.cache
def renderer_hash() -> str:
    """Return a short hash of the renderer: its code, its heads, and the packages it renders with."""
    package = Path(semanticface.__file__).parent
    code = files_sha256(
        [
            *sorted((package / "rendering").rglob("*.py")),
            package / "semantics" / "expression_sampler.py",
            package / "semantics" / "take_sampler.py",
            assets.path("head.npz"),
            assets.path("head_ict.npz"),
            assets.path("take.npz"),
        ]
    )
    versions = {name: importlib.metadata.version(name) for name in _RENDER_PACKAGES}
    return hashlib.sha256(json.dumps([code, semanticface.__version__, versions]).encode()).hexdigest()[:8]


def subject_name(subject: int) -> str:
    """Return a person's name in the column ``subject``."""
    return f"face-{subject:07d}"


def _hash_int(text: str) -> int:
    """63 bits of sha256: the same on every machine, and it fits an int64 column."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def split_of(subject: int, splits: dict[str, float]) -> str:
    """Return the split a person belongs to; depends only on the arguments."""
    return split_at(_hash_int(f"subject {subject}") / 2**63, splits)


def family_of(subject: int, families: dict[str, float]) -> rendering.Family:
    """Return the family of a person's head; depends only on the arguments."""
    return cast(rendering.Family, split_at(_hash_int(f"family {subject}") / 2**63, families))


def subjects_by_split(settings: RenderSettings) -> dict[str, np.ndarray]:
    """Return the numbers of the people in each split; raise a ConfigError if a split has none."""
    if settings.subject is not None:
        return {split: np.array([settings.subject]) for split in settings.splits}
    people: dict[str, list[int]] = {split: [] for split in settings.splits}
    for subject in range(settings.first_subject, settings.first_subject + settings.subjects):
        people[split_of(subject, settings.splits)].append(subject)
    empty = [split for split, members in people.items() if not members]
    if empty:
        raise ConfigError(f"none of {settings.subjects} subjects is in {', '.join(empty)}: raise subjects")
    return {split: np.array(members) for split, members in people.items()}


def rows_by_split(settings: RenderSettings) -> dict[str, int]:
    """Return the number of rows of each split, by its share; raise a ConfigError if a split has none."""
    if settings.only is not None:
        return {settings.only: settings.rows}
    total = sum(settings.splits.values())
    ends = [round(settings.rows * end / total) for end in accumulate(settings.splits.values())]
    counts = dict(zip(settings.splits, np.diff([0, *ends]).tolist(), strict=True))
    empty = [split for split, count in counts.items() if count == 0]
    if empty:
        raise ConfigError(f"{settings.rows} rows leave none for {', '.join(empty)}: raise rows or its share")
    return counts


def make_row(settings: RenderSettings, people: np.ndarray, row_seed: int) -> dict[str, Any]:
    """Render one row of ``faces.FEATURES`` from its seed; the picture as JPEG bytes without metadata.

    Args:
        settings: of the dataset.
        people: int[n], the subjects to choose from.
        row_seed: 63-bit number that decides everything about the row.
    """
    rng = np.random.default_rng(row_seed)
    shares = np.array(list(settings.looks.values()))
    style = list(settings.looks)[rng.choice(len(shares), p=shares / shares.sum())]
    subject = int(people[rng.integers(len(people))])
    shot = int(rng.integers(2**31))
    # Without takes the sampler is in the state that it has in datasets made before there was a share.
    like_take = settings.take_share > 0 and rng.random() < settings.take_share
    coefficients = sample_like_takes(rng) if like_take else sample_coefficients(rng)
    return render_row(settings, coefficients, style=style, subject=subject, shot=shot, seed=row_seed)


def render_row(
    settings: RenderSettings, coefficients: np.ndarray, *, style: str, subject: int, shot: int, seed: int
) -> dict[str, Any]:
    """Render one row of ``faces.FEATURES``; the picture as JPEG bytes without metadata.

    Args:
        settings: of the dataset.
        coefficients: float32[52] in [0, 1].
        style: one of ``rendering.STYLES``, or ``rendering.HELD_OUT_STYLE``.
        subject: seed of the person.
        shot: seed of camera, light and background.
        seed: for the column of that name.
    """
    # Drawings have no head, and the imp is one character on MakeHuman's.
    family = family_of(subject, settings.families) if style in rendering.HEAD_STYLES else "makehuman"
    rendered = rendering.render(
        coefficients,
        style=style,
        subject=subject,
        shot=shot,
        size=settings.size,
        supersample=settings.supersample,
        framing=settings.framing,
        conditions=settings.conditions,
        family=family,
        vary_actions=settings.vary_actions,
    )
    return row_of(
        rendered,
        subject=subject_name(subject),
        look=style,
        seed=seed,
        emotion=settings.emotion,
        family="" if style == "drawn" else family,
    )


def row_of(
    rendered: rendering.Rendered, *, subject: str, look: str, seed: int, emotion: bool = True, family: str = ""
) -> dict[str, Any]:
    """Return the row of ``faces.FEATURES`` of a rendered face; the picture as JPEG bytes without metadata."""
    # Stage I reads the numbers as the answer prints them, so that text and digits agree.
    rounded = np.round(rendered.coefficients, 2)
    return {
        "picture": encode_jpeg(PIL.Image.fromarray(rendered.image)),
        "coefficients": rendered.coefficients,
        "subject": subject,
        "look": look,
        "camera": {key: float(rendered.camera[key]) for key in CAMERA_KEYS},
        "pose": rendered.pose,
        "seed": seed,
        "answer": format_answer(rounded, describe(rounded, emotion=emotion)),
        "points": list(rendered.points),
        "box": rendered.box,
        "family": family,
    }


@dataclass(frozen=True)
class _Shard:
    """One file: rows ``start`` to ``stop`` of a split."""

    path: Path
    split: str
    start: int
    stop: int


def _shards(folder: Path, settings: RenderSettings) -> list[_Shard]:
    shards = []
    most = min(SHARD_ROWS, max(_MIN_SHARD_ROWS, -(-settings.rows // _SHARDS)))
    for split, rows in rows_by_split(settings).items():
        starts = range(0, rows, most)
        shards += [
            _Shard(shard_path(folder, split, i, len(starts)), split, start, min(start + most, rows))
            for i, start in enumerate(starts)
        ]
    return shards


def _make_shard(settings: RenderSettings, people: np.ndarray, shard: _Shard, tick: Callable[[], object]) -> None:
    rows = []
    for number in range(shard.start, shard.stop):
        rows.append(make_row(settings, people, _hash_int(f"row {settings.seed} {shard.split} {number}")))
        tick()
    write_shard(shard.path, rows)


_rows_done: Any = None  # in a worker process: the counter it shares with the parent


def _start_worker(counter: Any) -> None:
    global _rows_done
    _rows_done = counter
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process: the parent reports, workers just exit
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent process dies: a killed parent cannot stop its pool."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _count_row() -> None:
    with _rows_done.get_lock():
        _rows_done.value += 1


def _worker_shard(settings: RenderSettings, people: np.ndarray, shard: _Shard) -> None:
    _make_shard(settings, people, shard, _count_row)


def render_set(out: str | Path, settings: RenderSettings, *, workers: int = 1, overwrite: bool = False) -> Path:
    """Render a dataset of faces into a folder, or resume an interrupted run, with a progress bar.

    Args:
        out: the folder; new, empty, or started by this function with the same settings.
        settings: what to render.
        workers: number of processes; does not change the result.
        overwrite: delete a dataset that an earlier run left in ``out``, whatever its settings.

    Returns:
        The complete folder: ``datasets.load_from_disk`` and ``faces.load_faces`` read it.

    Raises:
        ConfigError: a split would have no people or no rows.
        DatasetError: ``out`` holds something else or a dataset of other settings, or a worker was killed.
        SemanticFaceError: the disk is full or not writable; finished shards stay, and a rerun resumes.
    """
    check_range("workers", workers, 1)
    folder = Path(out).resolve()
    people = subjects_by_split(settings)
    shards = _shards(folder, settings)
    recipe = _start(folder, settings, overwrite)
    index = folder / "dataset_dict.json"
    if index.is_file():
        return folder
    for scratch in folder.glob("*/.data-*"):
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
    missing = [shard for shard in shards if not shard.path.is_file()]
    kept = sum(shard.stop - shard.start for shard in shards if shard not in missing)
    with tqdm(total=settings.rows, initial=kept, unit="row", desc=f"rendering {folder.name}") as bar:
        if workers == 1:
            for shard in missing:
                _make_shard(settings, people[shard.split], shard, bar.update)
        else:
            for done in _rows_by_workers(settings, people, missing, workers):
                bar.update(done)
    counts = {split: sum(shard.split == split for shard in shards) for split in rows_by_split(settings)}
    write_index(folder, counts, {"settings": recipe["settings"], "versions": recipe["versions"]})
    return folder


def _rows_by_workers(
    settings: RenderSettings, people: dict[str, np.ndarray], shards: list[_Shard], workers: int
) -> Iterator[int]:
    """Render shards in processes; yield the number of rows rendered since the last time."""
    # Numba's threads do not survive a fork, and one thread per process is fastest if every core has a process.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(counter,))
    try:
        waiting: set[Future[None]] = {
            pool.submit(_worker_shard, settings, people[shard.split], shard) for shard in shards
        }
        reported = 0
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            done_rows = counter.value
            yield done_rows - reported
            reported = done_rows
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process was killed, perhaps because memory ran out. Run the same command again with fewer "
            "--workers; finished shards are kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(folder: Path, settings: RenderSettings, overwrite: bool) -> dict[str, Any]:
    """Write the recipe into a new folder, or check that an existing one is the same; return it."""
    recipe = {
        "kind": "faces",
        "settings": dataclasses.asdict(settings),
        "versions": {
            "semanticface": semanticface.__version__,
            **{package: importlib.metadata.version(package) for package in _RENDER_PACKAGES},
        },
        "commit": git_commit(),
    }
    path = folder / RECIPE_NAME
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        existing = recipe_of_kind(folder)
        if existing is None:
            raise DatasetError(f"{folder} holds something else: choose another --out.")
        if not overwrite:
            # A setting that is newer than the dataset has its default there, and there were no takes.
            old = dataclasses.asdict(RenderSettings(take_share=0.0)) | (existing.get("settings") or {})
            _refuse_difference(folder, "settings", old, recipe["settings"])
            _refuse_difference(folder, "versions", existing.get("versions") or {}, recipe["versions"])
            return existing
        shutil.rmtree(folder)
    write_json(path, recipe)
    return recipe


def _refuse_difference(folder: Path, part: str, old: dict[str, Any], new: Any) -> None:
    # Compared as text: the order of looks and splits decides bytes too, and dicts compare without it.
    changed = [key for key in {**old, **new} if json.dumps(old.get(key)) != json.dumps(new.get(key))]
    if changed:
        text = ", ".join(f"{key} {old.get(key)} there, {new.get(key)} here" for key in changed)
        raise DatasetError(
            f"{folder} was started with other {part} ({text}). Use the same, choose another --out, or replace it with "
            "--overwrite."
        )
