"""The whole way on a small scale, in under ten minutes on two cores: ``make quickstart``.

A cartoon character that the base model has never seen is rendered with exact labels and explained in words (Stage I),
and nano is distilled onto it with LoRA (Stage II). The figures before and after are taken on pictures held out from
training, and the base model reads a real photograph. Every step is a command you can run alone; it is printed first.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from semanticface.cli.scripts import QUICKSTART_FACES

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
OUT = "outputs/quickstart"

STEPS = (
    (
        "Render a character nano has never seen, with exact labels, and describe every face in words (Stage I)",
        f"python data_prep/render_faces.py --out {OUT}/faces {QUICKSTART_FACES}",
    ),
    (
        "How well does nano read this character as shipped?",
        f"python eval/evaluate.py --model nano --dataset {OUT}/faces --out {OUT}/before",
    ),
    (
        "Distil: LoRA on nano, picture -> words -> coefficients (Stage II)",
        "accelerate launch --num_processes 1 train/distill.py --config train/configs/quickstart.yaml",
    ),
    (
        "A real photograph, read by nano",
        f"semanticface predict examples/astronaut.jpg --out {OUT}/photograph.jsonl",
    ),
    (
        "How well does it read the character now? Held-out pictures, before and after, and the report",
        f"python eval/evaluate.py --model {OUT}/adapter --dataset {OUT}/faces --out {OUT} --before {OUT}/before"
        f" --photos {OUT}/photograph.jsonl --title 'Quickstart: nano learns a character it has never seen'",
    ),
)


def run(number: int, title: str, command: str) -> None:
    """Print and run one step; stop the whole run where it fails."""
    print(f"\n{number} of {len(STEPS)}. {title}\n\n    {command}\n", flush=True)
    program, *arguments = shlex.split(command)
    # One thread: nano is as quick with it as with two, and does not crawl where other programs hold a core.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    status = subprocess.run([BIN / program, *arguments], cwd=ROOT, env=environment, check=False).returncode
    if status:
        sys.exit(
            "\nThis step failed; its message above says why. `make quickstart` goes on from here once it is mended."
        )


def main() -> None:
    started = time.monotonic()
    for number, (title, command) in enumerate(STEPS, start=1):
        run(number, title, command)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s. Open {OUT}/report.html in a browser.")
    print("Your own face, by picture or webcam, on this machine: .venv/bin/semanticface demo")


if __name__ == "__main__":
    main()
