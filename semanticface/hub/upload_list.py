"""Which files of a model folder may be uploaded: an allow-list by name, with the contents of each file checked.

Each file gets a verdict. *Included*: a part of the model, with valid contents. *Left out*: not a part of the model; it
is never uploaded. *Refused*: a part by its name, but with a problem; nothing is uploaded until that is fixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

from semanticface.data.provenance import PEOPLE_NAME
from semanticface.errors import ConfigError
from semanticface.hub.card_mark import README, RENDERED, Mark, read_mark
from semanticface.hub.public_recipe import local_base, public
from semanticface.models.files import check_files
from semanticface.privacy.publish import require_publish
from semanticface.recipe import RECIPE_NAME, read_recipe
from semanticface.vision.image_io import SUFFIXES as PICTURES
from semanticface.vision.video_reader import SUFFIXES as VIDEOS

Verdict = Literal["included", "left out", "refused"]

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_WHOLE = (
    "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja",
)  # fmt: skip
_ALWAYS = ("LICENSE", "LICENSE.md", "NOTICE")
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_LORA = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|token_adapter)(\.|$)")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_DATA = (".arrow", ".parquet", ".sqlite", ".db", ".jsonl", ".csv", ".tsv", ".lmdb", ".h5", ".zip", ".tar", ".gz")
_STATES = re.compile(r"(optimizer|scheduler|rng_state|scaler|trainer_state|training_args|random_states)", re.IGNORECASE)
_SECRET_NAMES = re.compile(r"^\.env|\.pem$|\.key$|^id_[a-z0-9]+$|token$|secret|credential|^\.netrc$", re.IGNORECASE)
_SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[0-9A-Z]{16}"
    rb"|xox[baprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_INSIDE = re.compile(rb"\bdata:[\w.+-]*/[\w.+-]*[;,]", re.IGNORECASE)  # an embedded picture or other file
_IMAGES = re.compile(r"!\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]*\bsrc\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE)
_NAMES = ("_name_or_path", "name_or_path")
"""Where transformers records the folder that something was loaded from."""
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
"""Lists of tokens, which may contain any text."""
_TEXTS = (".json", ".jinja", ".txt", ".md", ".py", "")
_LARGEST_TEXT = 64 * 2**20
_READ = 4096


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """The verdict on one file.

    Attributes:
        name: its path in the repository, with forward slashes.
        path: the local file.
        size: bytes of the uploaded content.
        verdict: included, left out or refused.
        why: a short reason.
        content: uploaded instead of the file; None for the file itself.
    """

    name: str
    path: Path
    size: int
    verdict: Verdict
    why: str
    content: bytes | None = None


def list_model(folder: Path, card: Path | None) -> list[UploadEntry]:
    """Return the verdict on each file of a model folder, sorted by name.

    Args:
        folder: of a model or adapter.
        card: its model card, which becomes README.md; its pictures are next to it. None: only parts of the model, as
            for a Space.

    Raises:
        ModelError: the folder is incomplete, or has pickles instead of safetensors.
        ConfigError: the card is missing; someone in the training data did not agree to publication; the base is a
            local folder and the card names none on the Hub.
    """
    recipe = read_recipe(folder)
    adapter = recipe["kind"] == "adapter"
    check_files(folder, adapter=adapter)
    require_publish(folder)
    wanted = {*_ALWAYS, RECIPE_NAME, *(_ADAPTER if adapter else _WHOLE)}
    text = "" if card is None else _text_of(card, folder)
    mark = read_mark(text)
    base = _base(recipe, text or _read_if_there(folder / README), folder)
    paths = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if card is not None:
        wanted.add(README)
        paths |= {README: card} | {path.name: path for path in _pictures_of(card, mark)}
    out = []
    for name, path in sorted(paths.items()):
        entry = _classify(path, name, wanted, mark, adapter)
        if entry.verdict == "included":
            entry = _check_paths(_rewrite(entry, recipe, base), folder)
        out.append(entry)
    uploaded = {entry.name for entry in out if entry.verdict != "left out"}
    return [_check_card(entry, text, uploaded) if entry.name == README else entry for entry in out]


def hidden_in(data: bytes, *, vocabulary: bool = False) -> str:
    """Return what a text contains that must not be published, as a short phrase; empty if nothing.

    Args:
        data: the text.
        vocabulary: it is a list of tokens, in which only secrets are searched for.
    """
    if _SECRETS.search(data):
        return "contains what looks like a token or a private key"
    return "" if vocabulary or not _INSIDE.search(data) else "embeds a picture or another file (data:…)"


def _read_if_there(card: Path) -> str:
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def _text_of(card: Path, folder: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{card} is missing: write the model's card first, semanticface card {folder}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{card} cannot be read: {error}. Write it again: semanticface card {folder}.") from error


def _base(recipe: Mapping[str, Any], text: str, folder: Path) -> str | None:
    """Return the Hub id that the card gives for a base that is a local folder in the recipe."""
    local = local_base(recipe)
    if local is None:
        return None
    try:
        named = ModelCard(text).data.get("base_model")
    except ValueError as error:
        raise ConfigError(f"the front matter of the card of {folder} cannot be parsed: {error}.") from error
    if not isinstance(named, str):
        raise ConfigError(
            f"the base of {folder} is {local}, a local folder: nobody else can load the adapter. Push that base "
            f"first, then name it in the card: semanticface card {folder} --base OWNER/NAME."
        )
    return named


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders.sort()
        yield from (here / name for name in sorted(files))
        yield from (here / name for name in folders if (here / name).is_symlink())


def _pictures_of(card: Path, mark: Mark | None) -> list[Path]:
    """Return the pictures next to a card that its comment lists."""
    names = [] if mark is None else list(mark.pictures)
    return [path for name in names if Path(name).name == name and (path := card.parent / name).is_file()]


def _classify(path: Path, name: str, wanted: set[str], mark: Mark | None, adapter: bool) -> UploadEntry:
    is_part = name in wanted or (not adapter and _SHARD.fullmatch(name) is not None)
    size = path.lstat().st_size
    if path.is_symlink():
        return UploadEntry(
            name, path, size, "refused" if is_part else "left out", "a symlink: copy the file itself there"
        )
    if not path.is_file():
        return UploadEntry(name, path, size, "left out", "not a regular file")
    if mark is not None and name in mark.pictures:
        shows = mark.pictures[name].get("shows", "")
        if hashlib.sha256(path.read_bytes()).hexdigest() != mark.pictures[name].get("sha256"):
            return UploadEntry(name, path, size, "refused", "not the picture that `semanticface card` wrote")
        if not shows:
            why = "may show a person: document their consent with --consent of `semanticface card`"
            return UploadEntry(name, path, size, "refused", why)
        why = "a rendered face" if shows == RENDERED else f"a picture with consent or licence: {shows}"
        return UploadEntry(name, path, size, "included", why)
    if not is_part:
        return UploadEntry(name, path, size, "left out", _why_excluded(path, name))
    problem = _problem(path, name, adapter)
    if problem:
        return UploadEntry(name, path, size, "refused", problem)
    return UploadEntry(name, path, size, "included", _part(name))


def _part(name: str) -> str:
    if name.endswith(".safetensors"):
        return "weights, safetensors"
    return {README: "the model card", RECIPE_NAME: "how it was made"}.get(name, "part of the model")


def _problem(path: Path, name: str, adapter: bool) -> str:
    """Return the problem of a file with the name of a part of a model; empty if there is none."""
    if name.endswith(".safetensors"):
        try:
            with safe_open(path, "np") as file:
                foreign = [key for key in file.keys() if not _LORA.search(key)]  # noqa: SIM118 - no mapping
                metadata = json.dumps(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            return _kind(path) or f"not safetensors: {error}"
        if adapter and foreign:
            return f"weights that are not the adapter's, such as {foreign[0]}: the base has its own licence"
        return hidden_in(metadata.encode())
    if path.stat().st_size > _LARGEST_TEXT:
        return "too large for a text"
    data = path.read_bytes()
    if problem := hidden_in(data, vocabulary=name in _VOCABULARIES):
        return problem
    try:
        text = data.decode("utf-8")
        if name.endswith(".json"):
            json.loads(text)
    except ValueError as error:
        return _kind(path) or f"cannot be read: {error}"
    return ""


def _why_excluded(path: Path, name: str) -> str:
    """Return why a file that is not part of a model is left out."""
    parts, last, suffix = Path(name).parts, Path(name).name, Path(name).suffix.lower()
    if any(part.startswith("checkpoint") for part in parts[:-1]) or _STATES.search(last):
        return "a checkpoint or an optimizer's state"
    if last == PEOPLE_NAME:
        return "the people in its training data: private"
    if suffix in _PICKLES or _kind(path).startswith("a pickle"):
        return "a pickle, which can run any code when loaded"
    if suffix in _DATA or _kind(path):
        return "data"
    if suffix in PICTURES or suffix in VIDEOS:
        return "a picture or video not written by `semanticface card`: faces need consent"
    if _SECRET_NAMES.search(last) or (
        suffix in _TEXTS and path.stat().st_size <= _LARGEST_TEXT and _SECRETS.search(path.read_bytes())
    ):
        return "it may contain secrets"
    if suffix == ".safetensors":
        return "weights that are not part of this model; its base has its own licence"
    return "not part of a model"


def _kind(path: Path) -> str:
    """Return the kind of a pickle or data file by its first bytes; else empty."""
    with path.open("rb") as file:
        head = file.read(_READ)
    # A pickle of protocol 2 or later; torch.save writes a ZIP archive that starts with data.pkl.
    if re.match(rb"\x80[\x02-\x05]", head) or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head):
        return "a pickle, which can run any code when loaded"
    for start, kind in ((b"ARROW1", "Arrow"), (b"PAR1", "Parquet"), (b"SQLite format 3", "SQLite"), (b"PK", "ZIP")):
        if head.startswith(start):
            return f"data ({kind})"
    return ""


def _rewrite(entry: UploadEntry, recipe: Mapping[str, Any], base: str | None) -> UploadEntry:
    """Rewrite recipe and configs for publication: local paths reduced to names, the base replaced by its Hub id."""
    if entry.name == RECIPE_NAME:
        value: Any = public(recipe)
        if base is not None:
            value["base"] |= {"name": base, "revision": None}
        why = f"{entry.why}; local paths reduced to names"
    elif entry.name == _ADAPTER[0]:
        value = public(json.loads(entry.path.read_text(encoding="utf-8")))
        if base is not None:
            value["base_model_name_or_path"] = base
        why = entry.why
    elif entry.name.endswith(".json") and entry.name not in _VOCABULARIES:
        original = json.loads(entry.path.read_text(encoding="utf-8"))
        value, why = _without_paths(original), entry.why
        if value == original:
            return entry
    else:
        return entry
    content = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    return UploadEntry(entry.name, entry.path, len(content), "included", why, content)


def _without_paths(value: Any) -> Any:
    """Return a JSON value without the paths that parts of a model were loaded from."""
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: public(each) if key in _NAMES else _without_paths(each) for key, each in value.items()}


def _check_paths(entry: UploadEntry, folder: Path) -> UploadEntry:
    """Refuse a part whose text still contains a local path, as notes and edits may."""
    if entry.name in _VOCABULARIES or Path(entry.name).suffix not in _TEXTS:
        return entry
    data = entry.path.read_bytes() if entry.content is None else entry.content
    for place in (folder.resolve(), Path.cwd(), Path.home()):
        if len(place.parts) > 1 and f"{place}{os.sep}".encode() in data:
            return UploadEntry(
                entry.name, entry.path, entry.size, "refused", f"contains {place}, a path on this machine"
            )
    return entry


def _check_card(entry: UploadEntry, text: str, uploaded: set[str]) -> UploadEntry:
    """Refuse a card with invalid front matter or missing pictures."""
    if entry.verdict != "included":
        return entry
    problem = ""
    try:
        if not ModelCard(text).data.to_dict():
            problem = "no front matter: write it with `semanticface card`"
    except (ValueError, TypeError) as error:
        problem = f"its front matter cannot be parsed: {error}"
    pictures = {first or second for first, second in _IMAGES.findall(text)}
    missing = sorted(name for name in pictures if "://" not in name and name not in uploaded)
    if missing and not problem:
        problem = f"shows {missing[0]}, which is not uploaded"
    return UploadEntry(entry.name, entry.path, entry.size, "refused", problem) if problem else entry
