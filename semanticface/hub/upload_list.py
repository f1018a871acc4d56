"""What of a model folder may leave this machine: an allow-list by name, each file on it looked into.

Three things can become of a file. *Included*: it is a part of the model, and is what its name says. *Left out*: it is
none, and stays here, whatever it is. *Refused*: it is a part by its name, but something is wrong with it; nothing is
uploaded before that is put right.
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
_INSIDE = re.compile(rb"\bdata:[\w.+-]*/[\w.+-]*[;,]", re.IGNORECASE)  # how a text holds a picture, or any other file
_SHOWN = re.compile(r"!\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]*\bsrc\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE)
_NAMES = ("_name_or_path", "name_or_path")
"""Where transformers notes the folder that something was loaded from."""
_WORDS = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
"""Lists of pieces of words, in which anything may stand."""
_TEXTS = (".json", ".jinja", ".txt", ".md", ".py", "")
_LARGEST_TEXT = 64 * 2**20
_READ = 4096


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """What becomes of one file.

    Attributes:
        name: its path inside the repository, with forward slashes.
        path: where it is.
        size: bytes, of what is uploaded where that is not the file as it is.
        verdict: included, left out or refused.
        why: in half a sentence.
        content: what is uploaded in place of the file; None for the file itself.
    """

    name: str
    path: Path
    size: int
    verdict: Verdict
    why: str
    content: bytes | None = None


def list_model(folder: Path, card: Path | None) -> list[UploadEntry]:
    """Return what becomes of each file of a model folder, in the order of their names.

    Args:
        folder: of a model or adapter.
        card: its model card, which becomes README.md; its pictures are taken from beside it. None: parts of the model
            alone, as they go into a Space.

    Raises:
        ModelError: the folder is not complete, or holds pickles where weights should be.
        ConfigError: the card is missing; somebody it learnt from did not agree to its being published; its base is a
            folder of this machine and the card names none on the Hub.
    """
    recipe = read_recipe(folder)
    adapter = recipe["kind"] == "adapter"
    check_files(folder, adapter=adapter)
    require_publish(folder)
    wanted = {*_ALWAYS, RECIPE_NAME, *(_ADAPTER if adapter else _WHOLE)}
    text = "" if card is None else _text_of(card, folder)
    mark = read_mark(text)
    base = _base(recipe, text or _text_there(folder / README), folder)
    paths = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if card is not None:
        wanted.add(README)
        paths |= {README: card} | {path.name: path for path in _beside(card, mark)}
    out = []
    for name, path in sorted(paths.items()):
        listed = _classify(path, name, wanted, mark, adapter)
        if listed.verdict == "included":
            listed = _placeless(_rewritten(listed, recipe, base), folder)
        out.append(listed)
    shown = {each.name for each in out if each.verdict != "left out"}
    return [_card_checked(each, text, shown) if each.name == README else each for each in out]


def hidden_in(data: bytes, *, words: bool = False) -> str:
    """Return what a text holds that must not leave this machine, in half a sentence; empty where it holds nothing.

    Args:
        data: the text.
        words: it is a list of pieces of words, in which only secrets are looked for.
    """
    if _SECRETS.search(data):
        return "holds what looks like a token or a private key"
    return "" if words or not _INSIDE.search(data) else "holds a picture or another file within its text (data:…)"


def _text_there(card: Path) -> str:
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def _text_of(card: Path, folder: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{card} is missing: write the model's card first, semanticface card {folder}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{card} cannot be read: {error}. Write it again: semanticface card {folder}.") from error


def _base(recipe: Mapping[str, Any], text: str, folder: Path) -> str | None:
    """Return the id that the card gives for a base that the recipe has as a folder of this machine."""
    local = local_base(recipe)
    if local is None:
        return None
    try:
        named = ModelCard(text).data.get("base_model")
    except ValueError as error:
        raise ConfigError(f"the card of {folder} has no front matter that can be read: {error}.") from error
    if not isinstance(named, str):
        raise ConfigError(
            f"the base of {folder} is {local}, a folder of this machine: nobody else can load the adapter. Push that "
            f"base first, then name it in the card: semanticface card {folder} --base OWNER/NAME."
        )
    return named


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders.sort()
        yield from (here / name for name in sorted(files))
        yield from (here / name for name in folders if (here / name).is_symlink())


def _beside(card: Path, mark: Mark | None) -> list[Path]:
    """Return the pictures that a card says were written beside it."""
    names = [] if mark is None else list(mark.pictures)
    return [path for name in names if Path(name).name == name and (path := card.parent / name).is_file()]


def _classify(path: Path, name: str, wanted: set[str], mark: Mark | None, adapter: bool) -> UploadEntry:
    known = name in wanted or (not adapter and _SHARD.fullmatch(name) is not None)
    size = path.lstat().st_size
    if path.is_symlink():
        return UploadEntry(name, path, size, "refused" if known else "left out", "a link: put the file itself there")
    if not path.is_file():
        return UploadEntry(name, path, size, "left out", "not a plain file")
    if mark is not None and name in mark.pictures:
        shows = mark.pictures[name].get("shows", "")
        if hashlib.sha256(path.read_bytes()).hexdigest() != mark.pictures[name].get("sha256"):
            return UploadEntry(name, path, size, "refused", "not the picture that `semanticface card` wrote")
        if not shows:
            why = "a picture of somebody: say where their consent is, with --consent of `semanticface card`"
            return UploadEntry(name, path, size, "refused", why)
        why = "a rendered face" if shows == RENDERED else f"a picture that may be shown: {shows}"
        return UploadEntry(name, path, size, "included", why)
    if not known:
        return UploadEntry(name, path, size, "left out", _why_excluded(path, name))
    problem = _problem(path, name, adapter)
    if problem:
        return UploadEntry(name, path, size, "refused", problem)
    return UploadEntry(name, path, size, "included", _part(name))


def _part(name: str) -> str:
    if name.endswith(".safetensors"):
        return "weights, safetensors"
    return {README: "the model card", RECIPE_NAME: "how it was made"}.get(name, "a part of the model")


def _problem(path: Path, name: str, adapter: bool) -> str:
    """Return what is wrong with a file that has the name of a part of a model; empty where nothing is."""
    if name.endswith(".safetensors"):
        try:
            with safe_open(path, "np") as file:
                strange = [key for key in file.keys() if not _LORA.search(key)]  # noqa: SIM118 - no mapping
                said = json.dumps(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            return _kind(path) or f"no safetensors: {error}"
        if adapter and strange:
            return f"weights that are not the adapter's, such as {strange[0]}: the base has a licence of its own"
        return hidden_in(said.encode())
    if path.stat().st_size > _LARGEST_TEXT:
        return "far too large for a text"
    data = path.read_bytes()
    if problem := hidden_in(data, words=name in _WORDS):
        return problem
    try:
        text = data.decode("utf-8")
        if name.endswith(".json"):
            json.loads(text)
    except ValueError as error:
        return _kind(path) or f"cannot be read: {error}"
    return ""


def _why_excluded(path: Path, name: str) -> str:
    """Return why a file that is no part of a model stays here."""
    parts, last, suffix = Path(name).parts, Path(name).name, Path(name).suffix.lower()
    if any(part.startswith("checkpoint") for part in parts[:-1]) or _STATES.search(last):
        return "a checkpoint or an optimizer's state"
    if last == PEOPLE_NAME:
        return "whom it learnt from: for those who trained it, nobody else"
    if suffix in _PICKLES or _kind(path).startswith("a pickle"):
        return "a pickle, which can run any code when it is read"
    if suffix in _DATA or _kind(path):
        return "data"
    if suffix in PICTURES or suffix in VIDEOS:
        return "a picture or video that `semanticface card` did not write: nobody's face leaves unasked"
    if _SECRET_NAMES.search(last) or (
        suffix in _TEXTS and path.stat().st_size <= _LARGEST_TEXT and _SECRETS.search(path.read_bytes())
    ):
        return "it may hold secrets"
    if suffix == ".safetensors":
        return "weights that are no part of this model; those of its base have a licence of their own"
    return "no part of a model"


def _kind(path: Path) -> str:
    """Return what a file is by its first bytes, as far as it must not be taken for something else; else empty."""
    with path.open("rb") as file:
        head = file.read(_READ)
    # A pickle of protocol 2 or later; and what torch.save writes, a ZIP archive with data.pkl at its start.
    if re.match(rb"\x80[\x02-\x05]", head) or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head):
        return "a pickle, which can run any code when it is read"
    for start, kind in ((b"ARROW1", "Arrow"), (b"PAR1", "Parquet"), (b"SQLite format 3", "SQLite"), (b"PK", "ZIP")):
        if head.startswith(start):
            return f"data ({kind})"
    return ""


def _rewritten(listed: UploadEntry, recipe: Mapping[str, Any], base: str | None) -> UploadEntry:
    """Return recipe and adapter config as they leave: without this machine's places, with the base's id on the Hub."""
    if listed.name == RECIPE_NAME:
        value: Any = public(recipe)
        if base is not None:
            value["base"] |= {"name": base, "revision": None}
        why = f"{listed.why}; places on this machine are cut to names"
    elif listed.name == _ADAPTER[0]:
        value = public(json.loads(listed.path.read_text(encoding="utf-8")))
        if base is not None:
            value["base_model_name_or_path"] = base
        why = listed.why
    elif listed.name.endswith(".json") and listed.name not in _WORDS:
        there = json.loads(listed.path.read_text(encoding="utf-8"))
        value, why = _unnamed(there), listed.why
        if value == there:
            return listed
    else:
        return listed
    content = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    return UploadEntry(listed.name, listed.path, len(content), "included", why, content)


def _unnamed(value: Any) -> Any:
    """Return a JSON value without the places that parts of a model were loaded from."""
    if isinstance(value, list):
        return [_unnamed(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: public(each) if key in _NAMES else _unnamed(each) for key, each in value.items()}


def _placeless(listed: UploadEntry, folder: Path) -> UploadEntry:
    """Return a part, refused where its text names a place of this machine all the same, as notes and edits may."""
    if listed.name in _WORDS or Path(listed.name).suffix not in _TEXTS:
        return listed
    data = listed.path.read_bytes() if listed.content is None else listed.content
    for place in (folder.resolve(), Path.cwd(), Path.home()):
        if len(place.parts) > 1 and f"{place}{os.sep}".encode() in data:
            return UploadEntry(
                listed.name, listed.path, listed.size, "refused", f"names {place}, a place of this machine"
            )
    return listed


def _card_checked(listed: UploadEntry, text: str, shown: set[str]) -> UploadEntry:
    """Return the card, refused where the Hub or its readers could not read it."""
    if listed.verdict != "included":
        return listed
    problem = ""
    try:
        if not ModelCard(text).data.to_dict():
            problem = "no front matter: write it with `semanticface card`"
    except (ValueError, TypeError) as error:
        problem = f"its front matter cannot be read: {error}"
    pictures = {first or second for first, second in _SHOWN.findall(text)}
    absent = sorted(name for name in pictures if "://" not in name and name not in shown)
    if absent and not problem:
        problem = f"shows {absent[0]}, which is not uploaded"
    return UploadEntry(listed.name, listed.path, listed.size, "refused", problem) if problem else listed
