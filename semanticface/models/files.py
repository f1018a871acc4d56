"""Find a model's files and check them: complete folders, safetensors only.

A model name is ``nano`` (the base in this package), a folder, or a hub id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from semanticface import assets
from semanticface.errors import ModelError

NANO = assets.path("nano")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_DOWNLOADED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def resolve_model(name: str | Path, revision: str | None = None) -> tuple[Path, str | None]:
    """Return the folder of ``nano``, a path or a hub id, and the commit if it came from the hub.

    Only configuration and safetensors files are downloaded; a folder already in the cache is used offline.

    Raises:
        ModelError: there is no such folder or hub model.
    """
    if str(name) == "nano":
        return NANO, None
    folder = Path(name)
    if folder.is_dir():
        return folder, None
    if folder.is_file():
        raise ModelError(f"{folder} is a file: give the model's folder.")
    try:
        found = Path(snapshot_download(str(name), revision=revision, allow_patterns=_DOWNLOADED))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ModelError(
            f"no model {name!r}: it is no folder, and no model of that name could be fetched from the hub. "
            "Check the spelling and the connection, or download it first (`hf download`)."
        ) from error
    return found, found.name


def check_files(folder: Path, adapter: bool = False) -> None:
    """Raise a ModelError unless a model or adapter folder is complete, with weights as safetensors."""
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}: check the path.")
    weights = "adapter_model.safetensors" if adapter else "*.safetensors"
    if not any(folder.glob(weights)):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{folder / pickles[0]} is a pickle, which can run any code when loaded. Convert it to safetensors "
                "(`save_pretrained` of a current transformers or peft writes it) and remove the pickle."
            )
        raise ModelError(f"{folder} holds no weights ({weights}): copy the whole model folder.")
    if adapter:
        needed = ["adapter_config.json"]
    else:
        needed = ["config.json", "tokenizer.json"]
        index = folder / "model.safetensors.index.json"
        if index.exists():
            needed += sorted(set(read_json(index).get("weight_map", {}).values()))
        if not any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
            needed.append("preprocessor_config.json")
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}: copy the whole model folder.")


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy it again from the original model.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object. Copy it again from the original model.")
    return content


def display_name(model: str) -> str:
    """Return the name of a model for clients: a hub id unchanged, a folder without its path."""
    return Path(model).resolve().name if Path(model).is_dir() else model
