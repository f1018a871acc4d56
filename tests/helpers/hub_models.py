"""A tiny base and an adapter of it, with recipes as trainings leave them. Not a test file."""

from pathlib import Path

from semanticface.data.provenance import Source
from semanticface.models.loading import ModelConfig, base_record, save_adapter
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record, read_recipe, write_recipe
from tests.helpers.tiny_adapter import adapted, tiny_adapter

SETTINGS = {
    "dataset": "outputs/faces",
    "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"], "projector": True},
    "train": {"max_steps": 7, "per_device_train_batch_size": 2, "learning_rate": 0.001, "seed": 3},
    "data": {"train": {"fingerprint": "0123abcd", "rows": 8, "settings": {"looks": {"photo": 6, "toon": 3}}}},
}
RENDERED = Source("outputs/faces", "train", "0123abcd", 8, 0)


def adapter_of_base(folder: Path, *sources: Source) -> Path:
    """Save ``folder/base``, a whole model, and ``folder/start``, an adapter of it that learnt from the sources."""
    adapter = tiny_adapter(folder)
    recipe = read_recipe(adapter)
    recipe["settings"] = SETTINGS
    recipe["trained_on"] = [source.to_dict() for source in sources or [RENDERED]]
    write_recipe(adapter, recipe)
    prompt = prompt_record(load_prompt("distill"))
    made = make_recipe(
        "base", base=None, prompt=prompt, emotion=True, readout="mean", image_size=32,
        settings={"faces": ["outputs/faces"], "seed": 0}, metrics={}, numbers="parallel",
    )  # fmt: skip
    write_recipe(folder / "base", made)
    return adapter


def adapter_of_nano(folder: Path) -> Path:
    """Save an adapter of nano that changes something, as if it had learnt from rendered faces; return its folder."""
    recipe = make_recipe(
        "adapter", base=base_record(ModelConfig("nano")), prompt=prompt_record(load_prompt("distill")), emotion=True,
        readout="mean", image_size=128, settings={}, metrics={}, numbers="parallel", trained_on=[RENDERED.to_dict()],
    )  # fmt: skip
    save_adapter(adapted(Path("nano")), folder, recipe)
    return folder
