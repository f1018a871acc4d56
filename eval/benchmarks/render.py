"""How many whole samples a second each look renders: expression, rig, camera, picture, sensor, all included.

    python eval/benchmarks/render.py
    python eval/benchmarks/render.py --size 128 --supersample 1 --framing crop --out outputs/render.json

Prints a table and writes JSON. Each process renders its own seeds after one warm-up picture (which compiles).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from pathlib import Path
from typing import Literal

import numpy as np

from semanticface.face import HELD_OUT_LOOK, LOOKS, render
from semanticface.face.sample import sample_coefficients
from semanticface.files import atomic_open


def sample(look: str, seed: int, size: int, supersample: int, framing: Literal["portrait", "crop"]) -> None:
    """One whole random sample."""
    c = sample_coefficients(np.random.default_rng([seed, 61]))
    render(c, look=look, subject=seed, shot=seed, size=size, supersample=supersample, framing=framing)


def work(look: str, first: int, count: int, options: argparse.Namespace, barrier: object, results: object) -> None:
    """Warm up, wait for the others, render, report (start, end, CPU seconds)."""
    sample(look, first, options.size, options.supersample, options.framing)
    barrier.wait()  # type: ignore[attr-defined]
    start, cpu = time.time(), time.process_time()
    for seed in range(first, first + count):
        sample(look, seed, options.size, options.supersample, options.framing)
    results.put((start, time.time(), time.process_time() - cpu))  # type: ignore[attr-defined]


def measure(look: str, processes: int, options: argparse.Namespace) -> dict[str, float | int | str]:
    """Samples a second of ``processes`` processes together, and CPU milliseconds a sample."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=work, args=(look, 1 + k * options.count, options.count, options, barrier, results))
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    times = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    starts, ends, cpu = zip(*times, strict=True)
    total = processes * options.count
    return {"look": look, "processes": processes, "samples_per_second": round(total / (max(ends) - min(starts)), 1),
            "cpu_ms_per_sample": round(1000 * sum(cpu) / total, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="of the picture in pixels")
    parser.add_argument("--supersample", type=int, default=2, help="samples a pixel along each side")
    parser.add_argument("--framing", choices=("portrait", "crop"), default="portrait")
    parser.add_argument("--count", type=int, default=100, help="samples a process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many processes to try")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/render.json"), help="JSON file")
    options = parser.parse_args()
    rows = []
    print(f"{'look':8}{'processes':>10}{'samples/s':>12}{'CPU ms/sample':>16}")
    for look in (*LOOKS, HELD_OUT_LOOK):
        for processes in options.processes:
            row = measure(look, processes, options)
            rows.append(row)
            print(f"{row['look']:8}{row['processes']:>10}{row['samples_per_second']:>12}{row['cpu_ms_per_sample']:>16}")
    settings = {k: getattr(options, k) for k in ("size", "supersample", "framing", "count")}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    with atomic_open(options.out) as file:
        json.dump({"settings": settings, "machine": machine, "results": rows}, file, indent=1)
    print(options.out)


if __name__ == "__main__":
    main()
