"""Load a vision-language model, add LoRA, save the adapter, and load it back with checks that it took effect.

Any model of ``AutoModelForImageTextToText`` will do; no code from a model folder is ever run, and weights are read from
safetensors only. A model name is ``nano`` (the base in this package), a folder, or a hub id.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from semanticface.config import check_range
from semanticface.errors import ConfigError, ModelError
from semanticface.models.files import check_files, read_json, resolve_model
from semanticface.models.processors import load_processor, quiet_transformers, set_image_size
from semanticface.prompts import load_prompt
from semanticface.recipe import files_sha256, make_recipe, prompt_record, read_recipe, write_recipe
from semanticface.utils.files import atomic_path

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_CPU = torch.device("cpu")
_PROJECTORS = ("multi_modal_projector", "connector", "merger")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which base model, and how to load it.

    Attributes:
        base: ``nano``, a folder, or a hub id.
        revision: commit, tag or branch of a hub id; what is trained records the commit.
        dtype: ``auto`` is bfloat16 on a GPU that supports it, else float32.
        device: ``auto`` is the GPU if there is one, else the CPU.
        quantize: ``nf4`` loads the language layers' base weights in 4 bits (bitsandbytes), for training on small GPUs.
        image_size: side in pixels of the crop for models that take any size (Qwen-VL); leave it out for others.
    """

    base: str = "nano"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    quantize: Literal["none", "nf4"] = "none"
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None:
            check_range("model.image_size", self.image_size, 16, 4096)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """LoRA settings, named as in ``peft.LoraConfig``.

    Attributes:
        r: rank of the update.
        lora_alpha: its scale; the update is multiplied by ``lora_alpha / r``.
        lora_dropout: share of the update's inputs dropped in training.
        target_modules: names of the linear layers of the language model that get an update.
        projector: also update the linear layers between vision encoder and language model.
    """

    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    projector: bool = False

    def __post_init__(self) -> None:
        check_range("lora.r", self.r, 1, 1024)
        check_range("lora.lora_alpha", self.lora_alpha, 1)
        check_range("lora.lora_dropout", self.lora_dropout, 0, 0.9)
        if not self.target_modules:
            raise ConfigError("lora.target_modules is empty: name at least one linear layer, for example q_proj")


@dataclass(slots=True)
class Bundle:
    """A model with its processor, tokenizer and recipe.

    Attributes:
        model: the transformers model, or the PeftModel around it.
        processor: its processor; images of ``image_size`` go through it unscaled.
        tokenizer: the processor's tokenizer.
        image_size: side in pixels of the square crop the model takes.
        recipe: how it was made, as in ``recipe.make_recipe``.
    """

    model: Any
    processor: Any
    tokenizer: Any
    image_size: int
    recipe: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return next(self.model.parameters()).device


def choose_device(device: str = "auto") -> torch.device:
    """Return the device to use; ``auto`` is the GPU if there is one, for each process of a launch its own."""
    if device == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else _CPU
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {device!r} cannot be used here: {error}. Use auto, cpu or cuda.") from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in; ``auto`` is bfloat16 on a GPU that supports it, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def language_prefix(model: PreTrainedModel) -> str:
    """Return the module name of the language model inside ``model``, such as ``model.language_model``."""
    decoder = model.get_decoder()
    return next(name for name, module in model.named_modules() if module is decoder)


def _skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model without weights, for the names of its modules."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(copy.deepcopy(config), trust_remote_code=False)


def _nf4(config: PreTrainedConfig, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return QLoRA's 4-bit config (Dettmers et al. 2023), for the language layers alone."""
    skeleton = _skeleton(config)
    prefix = language_prefix(skeleton)
    kept = [
        name
        for name, module in skeleton.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith(f"{prefix}.")
    ]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def _keep_trainable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for its AVX-512 kernel at the first forward in eval mode.

    It repacks in place and for good, gradients do not flow through repacked layers, and narrow layers make it fail: the
    first evaluation would silently end a training on such a CPU. On other devices nothing changes.
    """
    import bitsandbytes  # like peft below, imported late: a second or more that inference does not need

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


@quiet_transformers()
def load_base(config: ModelConfig) -> Bundle:
    """Load a full model and its processor.

    A folder without ``semanticface.json``, such as any model of the hub, gets the zero-shot prompt.

    Raises:
        ModelError: a file is missing or damaged, weights are pickled or do not fit the architecture.
        ConfigError: the device is not available.
    """
    folder, commit = resolve_model(config.base, config.revision)
    check_files(folder)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    # accelerate puts weights where they belong as they are read; without it they pass through the CPU's memory.
    placed = config.quantize == "nf4" or (device.type != "cpu" and importlib.util.find_spec("accelerate") is not None)
    try:
        architecture = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        quantization = _nf4(architecture, dtype) if config.quantize == "nf4" else None
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device} if placed else None,
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} does not load: {error}. Copy the whole model folder again.") from error
    model, report = loaded
    if quantization is not None:
        _keep_trainable(model)
    elif not placed:
        model.to(device)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU
    if report["missing_keys"] or report["mismatched_keys"]:
        bad = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(f"{folder}: the weights lack or do not fit {_some(bad)}. Copy the whole model folder again.")
    processor = load_processor(folder, architecture)
    side = set_image_size(processor, config.image_size)
    if (folder / "semanticface.json").exists():
        recipe = read_recipe(folder)
    else:
        recipe = make_recipe(
            "base",
            base=None,
            prompt=prompt_record(load_prompt("zero_shot")),
            emotion=True,
            readout="greedy",
            image_size=side,
            settings={},
            metrics={},
        )
    recipe["source"] = {"base": str(config.base), "revision": commit}
    return Bundle(model.eval(), processor, processor.tokenizer, side, recipe)


def base_record(config: ModelConfig) -> dict[str, Any]:
    """Return what identifies an adapter's base: name, and the hub commit or a hash of a folder's weights."""
    folder, commit = resolve_model(config.base, config.revision)
    weights = None if commit else files_sha256(list(folder.glob("*.safetensors")))
    return {"name": config.base, "revision": commit, "sha256": weights, "image_size": config.image_size}


def lora_pattern(model: PreTrainedModel, lora: LoraSettings) -> str:
    """Return the regular expression of the full names of the layers that get LoRA.

    It excludes the vision encoder, whose layers have the same names as the language layers in some models.
    """
    prefix = language_prefix(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    inside = {name.rsplit(".", 1)[-1] for name in linear if name.startswith(f"{prefix}.")}
    absent = [target for target in lora.target_modules if target not in inside]
    if absent:
        raise ConfigError(
            f"lora.target_modules: no language layer is called {', '.join(absent)}; "
            f"there are {', '.join(sorted(inside))}"
        )
    pattern = rf"{re.escape(prefix)}\..*\.({'|'.join(map(re.escape, lora.target_modules))})"
    if lora.projector:
        between = [
            name
            for name in linear
            if not name.startswith(f"{prefix}.") and any(part in _PROJECTORS for part in name.split("."))
        ]
        if not between:
            raise ConfigError("lora.projector: this model has no projector of linear layers; set it to false")
        pattern = "|".join([pattern, *map(re.escape, between)])
    return pattern


def add_lora(bundle: Bundle, lora: LoraSettings) -> Bundle:
    """Return the bundle with a new trainable LoRA adapter around its model; the base weights are frozen.

    The adapter starts without effect (``lora_B`` is zero) and is float32 whatever the base's dtype.

    Raises:
        ConfigError: a target is not in the model.
    """
    import peft

    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora_pattern(bundle.model, lora),
        task_type=None,
    )
    with warnings.catch_warnings():
        # peft uses an attribute that transformers is about to rename.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = peft.get_peft_model(bundle.model, config)
    _freeze_batch_norms(model)
    return Bundle(model, bundle.processor, bundle.tokenizer, bundle.image_size, bundle.recipe)


def _freeze_batch_norms(model: torch.nn.Module) -> None:
    """Keep batch norms in evaluation mode permanently.

    In training mode every batch would shift the running statistics of a convolutional encoder, though it is frozen.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc]


def save_adapter(bundle: Bundle, folder: str | Path, recipe: Mapping[str, Any]) -> None:
    """Save a trained adapter: weights, PEFT config, and ``semanticface.json`` last, which marks a complete folder."""
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        bundle.model.save_pretrained(scratch, safe_serialization=True, save_embedding_layers=False)
        config = read_json(Path(scratch) / "adapter_config.json")
        # Not the path, which means nothing on another machine.
        config["base_model_name_or_path"] = recipe["base"]["name"]
        (Path(scratch) / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in _ADAPTER_FILES:
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes((Path(scratch) / name).read_bytes())
    write_recipe(folder, recipe)


def load_trained(
    name: str | Path = "nano",
    *,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    quantize: Literal["none", "nf4"] = "none",
    revision: str | None = None,
    trainable: bool = False,
) -> Bundle:
    """Load ``nano``, a full model, or an adapter together with its base.

    An adapter is checked: its keys are exactly those of the layers it names, it was trained, it changes the logits, and
    the base is the one it was trained on.

    Args:
        name: ``nano``, a folder or a hub id.
        device: as in ``ModelConfig``.
        dtype: as in ``ModelConfig``.
        quantize: as in ``ModelConfig``.
        revision: of a hub id.
        trainable: keep the adapter separate, for more training; otherwise it is merged into the base, which computes
            the same faster (not into a 4-bit base, where merging would round it).

    Raises:
        ModelError: a file is missing, damaged, pickled or does not fit; the message names the file and the fix.
        ConfigError: the device is not available.
    """
    folder, _ = resolve_model(name, revision)
    if not any((folder / file).exists() for file in ("adapter_config.json", "adapter_model.safetensors")):
        return load_base(ModelConfig(str(name), revision, dtype, device, quantize, _recorded_side(folder)))
    check_files(folder, adapter=True)
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"{folder} is an adapter, which needs peft. Install it: pip install 'semanticface[train]'")
    recipe = read_recipe(folder)
    record = recipe["base"] or {}
    where = record.get("name", "")
    if where != "nano" and not Path(where).is_dir() and (folder / where).is_dir():
        where = str(folder / where)
    bundle = load_base(ModelConfig(where, record.get("revision"), dtype, device, quantize, record.get("image_size")))
    if record.get("sha256") is not None:
        base_folder, _ = resolve_model(where)
        if files_sha256(list(base_folder.glob("*.safetensors"))) != record["sha256"]:
            raise ModelError(
                f"{folder} was trained on other weights than those now in {where}. "
                "Train the adapter again, or bring back the base it was trained on."
            )
    model = _attach(bundle, folder, trainable)
    if trainable:
        _freeze_batch_norms(model)
    if not trainable and quantize == "none":
        model = model.merge_and_unload()
    return Bundle(model if trainable else model.eval(), bundle.processor, bundle.tokenizer, bundle.image_size, recipe)


def _recorded_side(folder: Path) -> int | None:
    """Return the crop side that a full model for images of any size was made with, if its recipe has one."""
    recipe = read_recipe(folder) if (folder / "semanticface.json").exists() else {}
    return recipe.get("image_size")


def _attach(bundle: Bundle, folder: Path, trainable: bool) -> Any:
    """Attach the adapter in ``folder`` to the bundle's model, or raise a ModelError that says why it does not fit."""
    import peft

    try:
        with warnings.catch_warnings():
            # Missing keys, only a warning in peft, are an error below.
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(bundle.model, folder, is_trainable=trainable, use_safetensors=True)
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            stored = set(file.keys())
            changes = any(file.get_tensor(key).any() for key in stored if ".lora_B." in key)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} does not fit its base: {error}") from error
    expected = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    if stored != expected:
        raise ModelError(
            f"the keys of {folder / 'adapter_model.safetensors'} are not those of its base's layers: missing "
            f"{_some(sorted(expected - stored))}; unexpected {_some(sorted(stored - expected))}. It was made for "
            "another model or another version of transformers or peft: load it there, or train again."
        )
    if not changes:
        raise ModelError(f"the adapter in {folder} is untrained: every lora_B is zero. `semanticface train` it.")
    ids = bundle.tokenizer("brows raised, jaw dropped", add_special_tokens=False, return_tensors="pt").input_ids
    # Where peft finds the base's config when it saves; the recipe's name would be looked up on the hub.
    model.peft_config[model.active_adapter].base_model_name_or_path = bundle.model.config.name_or_path
    was_training = model.training
    model.eval()
    with torch.no_grad():
        with_adapter = model(input_ids=ids.to(bundle.device)).logits
        with model.disable_adapter():
            without = model(input_ids=ids.to(bundle.device)).logits
    model.train(was_training)
    if torch.equal(with_adapter, without):
        raise ModelError(f"the adapter in {folder} does not change its base's logits: train it again.")
    return model


def _some(names: list[str], shown: int = 3) -> str:
    """Return the first few names and the number of the others."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) + rest) or "none"
