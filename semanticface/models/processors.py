"""Load the processor of any vision-language model, with or without torchvision.

Some stock processors (Qwen-VL, SmolVLM) contain a video processor that needs torchvision, and fail to load without it.
This project has pictures only, so without torchvision the same stock class is used without its video processor: images
and texts go through the same code as with torchvision installed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.utils import is_torchvision_available
from transformers.utils import logging as transformers_logging

from semanticface.errors import ModelError

DEFAULT_IMAGE_SIZE = 448
"""Crop side in pixels for processors that take images of any size, such as Qwen-VL: 196 tokens in Qwen3-VL."""


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing while something loads: bars, and notes about torchvision that need no action."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


class _PicturesOnly(ProcessorMixin):
    """A mixin for a stock processor class that leaves out the video processor and changes nothing else."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_args_and_dict(args, {**processor_dict, "video_processor": None}, **kwargs)

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        # SmolVLM's own version reads the video processor's frame rate, even for a chat without a video.
        return ProcessorMixin.apply_chat_template(self, *args, **kwargs)


def without_video(stock: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Return ``stock`` without its video processor, under the same name, so that it saves the same files."""
    return type(stock.__name__, (_PicturesOnly, stock), {"__doc__": stock.__doc__})


def stock_class(folder: Path, config: PreTrainedConfig) -> type[ProcessorMixin]:
    """Return the transformers class that a model folder names as its processor, or that fits its architecture."""
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        named = json.loads(path.read_text(encoding="utf-8")).get("processor_class") if path.exists() else None
        if named is not None:
            found = processor_class_from_name(named)
            if found is None:
                raise ModelError(f"{path} names the processor {named}, which transformers does not have: update it.")
            return found
    if type(config) in PROCESSOR_MAPPING:
        return cast(type[ProcessorMixin], PROCESSOR_MAPPING[type(config)])
    raise ModelError(
        f"{folder}: no file names a processor_class, and transformers has none for {config.model_type}. "
        "Copy processor_config.json from the original model."
    )


@quiet_transformers()
def load_processor(folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
    """Load the processor of the model in ``folder``, without its video processor if torchvision is missing."""
    stock = stock_class(folder, config)
    try:
        if is_torchvision_available() or "video_processor" not in stock.get_attributes():
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        else:
            processor = without_video(stock).from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(
            f"{folder}: the processor ({stock.__name__}) does not load: {error}. "
            "Copy the preprocessor and tokenizer files from the original model."
        ) from error
    if not processor.tokenizer.is_fast:
        raise ModelError(f"{folder}: the tokenizer has no tokenizer.json, without which answers cannot be aligned.")
    return processor


def set_image_size(processor: ProcessorMixin, side: int | None) -> int:
    """Set the processor to one image of ``side`` x ``side`` pixels a crop, and return the side.

    A crop contains the face alone, so SmolVLM does not split it into tiles and Qwen-VL does not rescale it.

    Args:
        processor: changed in place.
        side: pixels; None takes the processor's fixed size if it has one, else ``DEFAULT_IMAGE_SIZE``.
    """
    images = processor.image_processor
    if hasattr(images, "merge_size"):
        side, step = side or DEFAULT_IMAGE_SIZE, images.patch_size * images.merge_size
        if side % step:
            raise ModelError(f"this model takes pictures whose sides are multiples of {step} px, not {side}.")
        images.size = {"shortest_edge": side * side, "longest_edge": side * side}
        return side
    if hasattr(images, "do_image_splitting"):
        fixed = images.max_image_size["longest_edge"]
        images.do_image_splitting = False
        images.size = {"longest_edge": fixed}
    elif getattr(images, "do_center_crop", False):
        fixed = images.crop_size["height"]
    else:
        fixed = images.size.get("height") or images.size.get("shortest_edge")
    if fixed is None or side not in (None, fixed):
        raise ModelError(f"this model takes pictures of {fixed} px, not {side}: leave model.image_size out.")
    return int(fixed)
