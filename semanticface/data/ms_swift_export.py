"""Export a dataset of faces to ms-swift, and delete people from such exports.

An export is a folder with a JSONL per split (``messages``, ``images`` and ``subject``, which ms-swift ignores), the
images as files, the recipe and, for captures, the consent list. Answers have one of two forms: ``ours``, the canonical
``{"analysis": …, "arkit": …}``, or ``published``, in which SemanticFace was published: numbered prose, then a bare
object of the 52 and nine rotations under Live Link's names, one decimal each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import numpy as np
from PIL import Image

import semanticface
from semanticface import arkit
from semanticface.data.consent import NAME as CONSENT
from semanticface.data.consent import read_consent_file, require_consent
from semanticface.data.faces import dataset_record, load_faces, picture_bytes, recipe_of_kind
from semanticface.errors import DatasetError, SemanticFaceError
from semanticface.formats.tables import read_objects
from semanticface.prompts import Prompt, load_prompt
from semanticface.recipe import RECIPE_NAME, git_commit, prompt_record
from semanticface.semantics.analysis import Analysis
from semanticface.semantics.answer import parse_answer
from semanticface.utils.files import atomic_open, atomic_path, write_json
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face
from semanticface.vision.image_io import encode_jpeg, load_picture

KIND = "ms-swift"
IMAGES = "images"
"""Subfolder of the images."""
Form = Literal["ours", "published"]
FORMS: tuple[Form, ...] = get_args(Form)

_PROMPTS: dict[Form, str] = {"ours": "distill", "published": "published"}
_MIN_SIDE = 64  # pixels


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export.

    Attributes:
        rows: of each split.
        problems: a sentence for each row left out.
    """

    rows: dict[str, int]
    problems: tuple[str, ...]


def export_swift(dataset: str | Path, out: str | Path, form: Form = "ours") -> Exported:
    """Export all splits of a dataset to ms-swift: each row's crop, as training uses it, and its answer.

    Args:
        dataset: folder of faces.
        out: the new folder; it appears only when it is complete.
        form: of the answers.

    Raises:
        DatasetError: the dataset is missing or has no rows, or ``out`` exists.
        ConfigError: somebody did not agree to the use of their split.
    """
    folder, out = Path(dataset), Path(out)
    if out.exists():
        raise DatasetError(f"{out} already exists. Choose a new folder, or remove this one first.")
    splits = _splits(folder)
    faces = {split: load_faces(folder, split) for split in splits}
    for split, rows in faces.items():
        require_consent(folder, rows, "train" if split == "train" else "evaluate")
    if not sum(map(len, faces.values())):
        raise DatasetError(f"{folder} has no rows. Choose another dataset.")
    counts: dict[str, int] = {}
    problems: list[str] = []
    prompts: dict[str, Any] = {}
    with atomic_path(out) as temporary:
        (temporary / IMAGES).mkdir(parents=True)
        for split, rows in faces.items():
            with atomic_open(temporary / f"{split}.jsonl") as file:
                for prompt, line in _lines(folder, split, rows, form, temporary, problems):
                    prompts[prompt.sha256] = prompt_record(prompt)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts[split] = counts.get(split, 0) + 1
        recipe = {
            "kind": KIND,
            "form": form,
            "dataset": str(dataset),
            "data": {split: dataset_record(rows, folder) for split, rows in faces.items()},
            "prompts": list(prompts.values()),
            "versions": {"semanticface": semanticface.__version__},
            "commit": git_commit(),
        }
        write_json(temporary / RECIPE_NAME, recipe)
        if (folder / CONSENT).is_file():
            (temporary / CONSENT).write_bytes((folder / CONSENT).read_bytes())
        if not counts:
            raise DatasetError(f"{folder}: no row can be exported: {problems[0]}")
    return Exported(counts, tuple(problems))


def published_answer(coefficients: np.ndarray, analysis: Analysis, pose: np.ndarray | None = None) -> str:
    """Return an answer in the published form.

    Args:
        coefficients: [52] in [0, 1]; rounded to one decimal.
        analysis: becomes the prose.
        pose: [9], ``arkit.POSE_NAMES``; rounded likewise. None writes zeros, as in the published answers.
    """
    muscles = "; ".join(f"{region}: {text}" for region, text in analysis.muscle_movements.items())
    prose = [f"The face shows: {analysis.expression_category}.", f"The muscles: {muscles}."]
    if analysis.emotional_implication is not None:
        prose.append(f"It suggests: {analysis.emotional_implication}.")
    prose.append(f"Symmetry: {analysis.symmetry}.")
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(prose, start=1))
    values = np.concatenate([coefficients, np.zeros(arkit.N_POSE) if pose is None else pose]).astype(float)
    names = [*(arkit.PASCAL_CASE[name] for name in arkit.NAMES), *arkit.POSE_NAMES]
    # Adding 0 turns -0.0 into 0.0.
    numbers = {name: round(value, 1) + 0.0 for name, value in zip(names, values.tolist(), strict=True)}
    return f"{numbered}\n\n{json.dumps(numbers)}"


def _splits(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        load_faces(folder, "train")  # its error says what is wrong
        raise


def _lines(
    folder: Path, split: str, faces: datasets.Dataset, form: Form, out: Path, problems: list[str]
) -> Iterator[tuple[Prompt, dict[str, Any]]]:
    """Write the images of a split and yield its rows; a bad row is reported and does not shift the others' names."""
    rows = faces.cast_column("picture", datasets.Image(decode=False))
    for number, row in enumerate(tqdm(rows, desc=f"writing {split}", unit="face")):
        at = f"{folder}, {split}, row {number}"
        try:
            answer = parse_answer(row["answer"] or "")
            if answer.analysis is None:
                raise DatasetError("its answer has no analysis. Make it with `semanticface write-answers`.")
            picture = _crop(load_picture(picture_bytes(row["picture"], at), name=at), row.get("box"))
        except SemanticFaceError as error:
            message = str(error)
            problems.append(message if message.startswith(at) else f"{at}: {message}")
            continue
        prompt = load_prompt(_PROMPTS[form], emotion=answer.analysis.emotional_implication is not None)
        if form == "ours":
            text = row["answer"]
        else:
            pose = row.get("pose")
            values = np.asarray(row["coefficients"], dtype=np.float32)
            text = published_answer(values, answer.analysis, None if pose is None else np.asarray(pose))
        name = f"{IMAGES}/{split}-{number:06d}.jpg"
        with atomic_open(out / name, "wb") as file:
            file.write(encode_jpeg(picture))
        chat = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": f"<image>{prompt.user}"},
            {"role": "assistant", "content": text},
        ]
        yield prompt, {"messages": chat, "images": [name], "subject": row["subject"]}


def _crop(picture: Image.Image, box: Any) -> Image.Image:
    """Return the square crop that training uses; the whole picture if there is no box."""
    if box is None or not np.isfinite(box).all():
        return picture
    window = Box(*box).square()
    return crop_face(picture, window, max(_MIN_SIDE, round(window.width)))


def is_export(folder: Path) -> bool:
    """Return whether a folder is such an export."""
    return recipe_of_kind(folder, KIND) is not None


def subjects_in(folder: Path) -> set[str]:
    """Return everybody in an export."""
    found = (row.get("subject") for file in sorted(folder.glob("*.jsonl")) for row in _rows(file) if row is not None)
    return {who for who in found if isinstance(who, str)}


def forget_rows(folder: Path, subject: str) -> tuple[int, int, str]:
    """Delete a person's rows and images from an export.

    Returns:
        The number of rows, the number of images, and what is left to do by hand (mostly empty).
    """
    rows = images = 0
    for file in sorted(folder.glob("*.jsonl")):
        found = list(_rows(file))
        theirs = [row is not None and row.get("subject") == subject for row in found]
        if not any(theirs):
            continue
        others = {
            name for row, delete in zip(found, theirs, strict=True) if row and not delete for name in _images(row)
        }
        # Images first: while rows still name them, the same call can resume.
        for row, delete in zip(found, theirs, strict=True):
            for name in _images(row) if row and delete else ():
                path = (folder / name).resolve()
                if name not in others and path.is_relative_to(folder.resolve()) and path.is_file():
                    path.unlink()
                    images += 1
        raw = file.read_bytes().split(b"\n")
        kept = [line for line, delete in zip(raw, theirs, strict=False) if not delete]
        rows += sum(theirs)
        with atomic_open(file, "wb") as out:
            out.writelines(line + b"\n" for line in kept)
    consent = folder / CONSENT
    named = consent.is_file() and subject in read_consent_file(consent)
    return rows, images, f"{consent} still names {subject}: remove the line." if named else ""


def _rows(file: Path) -> Iterator[Mapping[str, Any] | None]:
    """Yield the lines of a JSONL, None for invalid ones."""
    if file.stat().st_size:
        yield from (row for _, row, _ in read_objects(file))


def _images(row: Mapping[str, Any]) -> list[str]:
    found = row.get("images")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
