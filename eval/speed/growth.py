"""How time and peak memory of every stage grow with the number of rows, from rendering to evaluation.

    export OMP_NUM_THREADS=1     # waiting threads use processor time too
    python eval/speed/growth.py                                      # 1,000 and 10,000 rows; half an hour
    python eval/speed/growth.py --quick                              # three stages, 100 and 300 rows
    python eval/speed/growth.py --rows 10000 100000 --stages render describe
    python eval/speed/growth.py --rows 10000 100000 --stages predict evaluate --mode numbers

Each stage is the real command in its own process:

    render     data_prep/render_faces.py: the drawn style at 48 px on one process, so that many rows are feasible;
               8 in 10 rows are for training, 1 for validation, 1 for test
    describe   data_prep/describe.py on that dataset: all its rows
    distil     train/distill.py of nano with LoRA as in train/configs/quickstart.yaml: `--steps` steps of an epoch
    predict    semanticface predict on a folder of as many pictures, to a JSONL, without face detection
    evaluate   eval/evaluate.py on a test split of as many rows, cropped by their own boxes

The last two use other pictures than the first three: `--faces` of the drawn style at 48 px, rendered beforehand, and
repeated in order for more rows. Each row is stored, read, decoded and answered separately; but with an analysis
(`--mode full`) the engine's draft learns from earlier answers, so give it as many faces as rows.

Columns: rows measured (for distil those of its steps, of an epoch), wall-clock and processor seconds, processor seconds
for all rows, rows a second without the start-up, and the peak memory of the process and its children together: resident
(with mapped files, which the system may drop), and private. The lines of `start-up` are the same command on 20 rows,
the median of three. An epoch of distil is projected: its start plus its steps, at the median time between two steps in
its log.

The last line is one JSON object. `time_exponent`: the slope of log(processor time without start-up) over log(rows),
over all sizes; 1 is linear. `memory_growth` and `own_memory_growth`: peak memory at the largest number of rows divided
by that at the smallest; 1 is flat. A stage that would take longer than `--longest`, judged by the size before, is
skipped and named.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import psutil

from semanticface.cli.scripts import ScriptParser
from semanticface.data.faces import load_faces
from semanticface.errors import SemanticFaceError
from semanticface.utils.files import atomic_open

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("render", "describe", "distil", "predict", "evaluate")
QUICK = ("render", "describe", "predict")
START_ROWS = 20
POLL = 0.05  # seconds between two memory samples


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one run.

    Attributes:
        stage: one of ``STAGES``.
        rows: of the dataset, or pictures in the folder.
        measured: rows processed; for distil those of its steps.
        of: rows of the whole stage: more than ``measured`` only for distil, whose epoch is projected.
        seconds: wall-clock time, measured.
        cpu_seconds: processor time of all processes, measured.
        epoch_cpu_seconds: processor time for all ``of`` rows: measured, or projected for distil.
        peak_mb: peak resident memory of all processes together.
        own_mb: the same without mapped files and shared memory.
    """

    stage: str
    rows: int
    measured: int
    of: int
    seconds: float
    cpu_seconds: float
    epoch_cpu_seconds: float
    peak_mb: float
    own_mb: float


def run_measured(command: list[str], log: Path) -> tuple[float, float, float, float]:
    """Run a command; return seconds, processor seconds, peak and private memory in MB, of it and all its children."""
    peak = own = 0
    start = time.perf_counter()
    with log.open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        seen = psutil.Process(process.pid)
        try:
            while True:
                # wait4 and not Popen.wait: it alone reports what this child and its children used.
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                now = now_own = 0
                for each in (seen, *seen.children(recursive=True)):
                    try:
                        memory = each.memory_info()
                    except psutil.NoSuchProcess:
                        continue
                    now += memory.rss
                    now_own += memory.rss - getattr(memory, "shared", 0)
                peak, own = max(peak, now), max(own, now_own)
                time.sleep(POLL)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            output.seek(0)
            raise SemanticFaceError(f"{' '.join(command)} failed with {process.returncode}:\n{output.read()[-2000:]}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, peak / 1e6, own / 1e6


def step_seconds(logs: Path) -> float:
    """Return the median seconds between two steps, from a training's TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    times = [event.wall_time for event in events.Scalars("train/loss")]
    return statistics.median(np.diff(times).tolist())


def repeated(faces: datasets.Dataset, rows: int) -> datasets.Dataset:
    """Return ``rows`` rows, the given ones in order and repeated, as stored: pictures are not decoded."""
    stored = faces.cast_column("picture", datasets.Image(decode=False))
    return stored.select(np.arange(rows) % len(faces)).cast_column("picture", faces.features["picture"])


def write_dataset(source: Path, folder: Path, rows: int) -> None:
    """Write a dataset with the training split of the source and ``rows`` rows of its test split."""
    splits = {"train": load_faces(source, "train"), "test": repeated(load_faces(source, "test"), rows)}
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def write_pictures(source: Path, folder: Path, rows: int) -> None:
    """Write ``rows`` pictures of the source's test split as files."""
    folder.mkdir()
    faces = load_faces(source, "test").cast_column("picture", datasets.Image(decode=False))
    pictures = [row["bytes"] for row in faces["picture"]]
    for index in range(rows):
        (folder / f"{index:06}.png").write_bytes(pictures[index % len(pictures)])


class Bench:
    """Runs the stages in a scratch folder.

    Args:
        scratch: an empty folder.
        steps: of distil.
        mode: of predict and evaluate, ``full`` or ``numbers``.
        faces: different ones in predict and evaluate.
    """

    def __init__(self, scratch: Path, steps: int, mode: str, faces: int) -> None:
        self.scratch = scratch
        self.steps = steps
        self.mode = mode
        self.faces = faces

    def run(self, stage: str, rows: int, repeat: int = 0) -> Cost:
        """Run one stage on ``rows`` rows; describe and distil need the stages before, run on as many."""
        work: dict[str, Callable[[Path, int], Cost]] = {
            "render": self._render, "describe": self._describe, "distil": self._distil, "predict": self._predict,
            "evaluate": self._evaluate,
        }  # fmt: skip
        folder = self.scratch / f"{rows}-{repeat}"
        folder.mkdir(exist_ok=True)
        return work[stage](folder, rows)

    def _run(self, stage: str, folder: Path, rows: int, measured: int, *command: object) -> Cost:
        full = [sys.executable, *map(str, command)]
        seconds, cpu, peak, own = run_measured(full, folder / f"{stage}.log")
        return Cost(stage, rows, measured, measured, seconds, cpu, cpu, peak, own)

    def _render(self, folder: Path, rows: int) -> Cost:
        splits = "train=0.8,validation=0.1,test=0.1"
        return self._run("render", folder, rows, rows, *_rendering(folder / "rendered", rows, splits))

    def _source(self) -> Path:
        """Return the dataset whose test split predict and evaluate repeat, rendered on first use."""
        folder = self.scratch / "source"
        if not folder.exists():
            command = _rendering(folder, self.faces * 5 // 4, "train=0.2,test=0.8")
            run_measured([sys.executable, *map(str, command)], self.scratch / "source.log")
        return folder

    def _describe(self, folder: Path, rows: int) -> Cost:
        command = ("data_prep/describe.py", folder / "rendered", folder / "faces")
        return self._run("describe", folder, rows, rows, *command)

    def _distil(self, folder: Path, rows: int) -> Cost:
        batch, output = 8, folder / "adapter"
        settings = {
            "dataset": folder / "faces", "output": output, "train.max_steps": self.steps,
            "train.per_device_train_batch_size": batch,
            "train.logging_steps": 1, "train.eval_rows": 2, "train.eval_steps": self.steps,
            "train.save_steps": self.steps,
        }  # fmt: skip
        cost = self._run(
            "distil", folder, rows, self.steps * batch, "train/distill.py", "--config", "train/configs/quickstart.yaml",
            "--set", *(f"{key}={value}" for key, value in settings.items()),
        )  # fmt: skip
        epoch = len(load_faces(folder / "faces", "train"))
        # The log has wall-clock times; other work on the machine slows both the run and its steps.
        step = step_seconds(output / "logs") * cost.cpu_seconds / cost.seconds
        projected = cost.cpu_seconds + step * (epoch / batch - self.steps)
        values = asdict(cost) | {"of": epoch, "epoch_cpu_seconds": projected}
        return Cost(**values)

    def _predict(self, folder: Path, rows: int) -> Cost:
        pictures = folder / "pictures"
        write_pictures(self._source(), pictures, rows)
        return self._run(
            "predict", folder, rows, rows, "-m", "semanticface", "predict", pictures, "--no-crop",
            "--mode", self.mode, "--out", folder / "predictions.jsonl",
        )  # fmt: skip

    def _evaluate(self, folder: Path, rows: int) -> Cost:
        dataset = folder / "test"
        write_dataset(self._source(), dataset, rows)
        return self._run(
            "evaluate", folder, rows, rows, "eval/evaluate.py", "--model", "nano", "--dataset", dataset,
            "--crop", "box", "--mode", self.mode, "--out", folder / "evaluation",
        )  # fmt: skip


def _rendering(folder: Path, rows: int, splits: str) -> tuple[object, ...]:
    return (
        "data_prep/render_faces.py", "--out", folder, "--rows", rows, "--styles", "drawn=1", "--size", 48,
        "--supersample", 1, "--workers", 1, "--splits", splits,
    )  # fmt: skip


def exponent(costs: list[Cost], start: Cost) -> float | None:
    """Return the slope of log(processor time) over log(rows), both without start-up; None below two sizes."""
    points = [(cost.of - start.of, cost.epoch_cpu_seconds - start.epoch_cpu_seconds) for cost in costs]
    points = [(rows, seconds) for rows, seconds in points if rows > 0 and seconds > 0]
    if len(points) < 2:
        return None
    rows, seconds = np.log(points).T
    return round(float(np.polyfit(rows, seconds, 1)[0]), 3)


def spent(cost: Cost) -> float:
    """Return the processor time of a run."""
    return cost.cpu_seconds


def line(cost: Cost, start: Cost | None) -> str:
    """Return a line of the table."""
    measured = f"{cost.measured:,}" + (f" of {cost.of:,}" if cost.of > cost.measured else "")
    rate = "start-up"
    if start is not None:
        more = cost.epoch_cpu_seconds - start.epoch_cpu_seconds
        rate = f"{(cost.of - start.of) / more:.1f}" if more > 0 else "-"
    return (
        f"{cost.stage:9}{cost.rows:>9,}{measured:>17}{cost.seconds:>10.1f}{cost.cpu_seconds:>10.1f}"
        f"{cost.epoch_cpu_seconds:>12.1f}{rate:>10}{cost.peak_mb:>10.0f}{cost.own_mb:>9.0f}"
    )


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000], help="sizes (default 1000 10000)")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=STAGES,
        help="only these; distil needs describe, which needs render (default: all)",
    )
    parser.add_argument("--steps", type=int, default=30, help="steps of distil at every size (default %(default)s)")
    parser.add_argument(
        "--mode", choices=("full", "numbers"), default="full", help="of predict and evaluate (default %(default)s)"
    )
    parser.add_argument(
        "--faces",
        type=int,
        default=10_000,
        help="different ones in predict and evaluate (default %(default)s)",
    )
    parser.add_argument("--longest", type=float, default=30, help="minutes a stage may take (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="render, describe and predict at 100 and 300 rows")
    parser.add_argument("--work", type=Path, help="folder for the scratch files (default: the system's)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/speed/growth.json"), help="where to write (%(default)s)"
    )
    options = parser.parse_args()
    datasets.disable_progress_bars()
    sizes = [100, 300] if options.quick else sorted(set(options.rows))
    stages = QUICK if options.quick else [stage for stage in STAGES if stage in options.stages]
    faces = min(options.faces, sizes[-1])
    if sizes[0] <= START_ROWS or options.steps < 4 or faces < START_ROWS:
        parser.error(f"--rows must be above {START_ROWS}, --faces at least {START_ROWS} and --steps at least 4")

    repeats = 1 if options.quick else 3
    print(f"{'stage':9}{'rows':>9}{'measured':>17}{'seconds':>10}{'CPU s':>10}{'CPU s (all)':>12}{'rows/s':>10}"
          f"{'peak MB':>10}{'own MB':>9}")  # fmt: skip
    costs: dict[str, list[Cost]] = {stage: [] for stage in stages}
    skipped: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="growth-", dir=options.work) as scratch:
            bench = Bench(Path(scratch), options.steps, options.mode, faces)
            starts = [{stage: bench.run(stage, START_ROWS, repeat) for stage in stages} for repeat in range(repeats)]
            start = {stage: sorted((each[stage] for each in starts), key=spent)[repeats // 2] for stage in stages}
            for stage in stages:
                print(line(start[stage], None))
            for rows in sizes:
                for stage in stages:
                    done = costs[stage]
                    grows = done and stage != "distil"  # which takes the same number of steps at every size
                    minutes = done[-1].seconds * rows / done[-1].rows / 60 if grows else 0
                    if minutes > options.longest:
                        skipped.append(f"{stage} of {rows:,} rows: about {minutes:.0f} minutes")
                        continue
                    done.append(bench.run(stage, rows))
                    print(line(done[-1], start[stage]), flush=True)
        summary = {"time_exponent": {stage: exponent(done, start[stage]) for stage, done in costs.items()}}
        for name, key in (("memory_growth", "peak_mb"), ("own_memory_growth", "own_mb")):
            ratios = {stage: getattr(done[-1], key) / getattr(done[0], key) for stage, done in costs.items()}
            summary[name] = {stage: round(ratio, 3) for stage, ratio in ratios.items()}
        for what in skipped:
            print(f"skipped: {what}")
        machine = {
            "cpus": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"), "machine": platform.machine(),
            "python": platform.python_version(),
        }  # fmt: skip
        runs = [asdict(cost) for stage in stages for cost in (start[stage], *costs[stage])]
        with atomic_open(options.out) as file:
            settings = {
                "rows": sizes, "start_rows": START_ROWS, "steps": options.steps, "mode": options.mode, "faces": faces,
            }  # fmt: skip
            json.dump(
                summary | {"left_out": skipped, "runs": runs, "settings": settings, "machine": machine}, file, indent=2
            )
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
