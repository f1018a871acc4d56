"""An adapter around a tiny model, as after training, built in code."""

from pathlib import Path

import torch

from semanticface.models.loading import (
    Bundle,
    LoraSettings,
    ModelConfig,
    add_lora,
    base_record,
    load_base,
    save_adapter,
)
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record
from tests.helpers.tiny_models import fast_vlm


def adapted(base: Path, *, side: int | None = None, projector: bool = True) -> Bundle:
    """Return a base with a trainable adapter that has an effect; the same for the same base."""
    torch.manual_seed(0)  # of lora_A
    bundle = add_lora(load_base(ModelConfig(str(base), image_size=side)), LoraSettings(r=4, projector=projector))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in bundle.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    return bundle


def tiny_adapter(folder: Path) -> Path:
    """Save a tiny FastVLM and an adapter of it; return the adapter's folder."""
    base = fast_vlm(folder / "base")
    config = ModelConfig(str(base))
    recipe = make_recipe(
        "adapter",
        base=base_record(config),
        prompt=prompt_record(load_prompt("distill")),
        emotion=True,
        readout="mean",
        image_size=32,
        settings={},
        metrics={},
        numbers="parallel",
    )
    save_adapter(adapted(base), folder / "start", recipe)
    return folder / "start"
