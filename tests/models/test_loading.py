"""Models load safely, adapters load completely, and processors behave as the stock ones."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ProcessorMixin
from transformers.models.qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm import SmolVLMProcessor

from semanticface.config import read_settings
from semanticface.errors import ConfigError, ModelError
from semanticface.models.files import NANO, resolve_model
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import (
    Bundle,
    LoraSettings,
    ModelConfig,
    add_lora,
    base_record,
    choose_device,
    language_prefix,
    load_base,
    load_trained,
    save_adapter,
)
from semanticface.models.processors import set_image_size
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record, read_recipe
from tests.helpers import tiny_models

LORA = LoraSettings(r=4, lora_alpha=8)


@pytest.fixture(scope="module", params=tiny_models.BUILD)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base_config(architecture, tmp_path_factory) -> ModelConfig:
    folder = tiny_models.BUILD[architecture](tmp_path_factory.mktemp("models") / architecture)
    return ModelConfig(str(folder), image_size=tiny_models.SIDE[architecture])


def save(bundle: Bundle, config: ModelConfig, folder) -> None:
    recipe = make_recipe(
        "adapter",
        base=base_record(config),
        prompt=prompt_record(load_prompt("distill")),
        emotion=True,
        readout="mean",
        image_size=bundle.image_size,
        settings={},
        metrics={"eval_loss": 1.0},
    )
    save_adapter(bundle, folder, recipe)


def trained(config: ModelConfig) -> Bundle:
    """Return a model with a LoRA adapter that has an effect, as after training."""
    torch.manual_seed(1)
    bundle = add_lora(load_base(config), LORA)
    for name, parameter in bundle.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return bundle


@pytest.fixture(scope="module")
def adapter(base_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "one"
    save(trained(base_config), base_config, folder)
    return folder


def logits(bundle: Bundle) -> torch.Tensor:
    picture = Image.new("RGB", (bundle.image_size,) * 2, (200, 120, 60))
    inputs = prompt_inputs(bundle, load_prompt("distill"), [picture])
    bundle.model.eval()
    with torch.no_grad():
        return bundle.model(**inputs).logits.float()


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


# Loading a base


def test_a_base_without_a_recipe_gets_the_zero_shot_prompt(base_config):
    bundle = load_base(base_config)
    assert bundle.recipe["kind"] == "base"
    assert bundle.recipe["prompt"] == prompt_record(load_prompt("zero_shot"))
    assert bundle.model.dtype == torch.float32
    assert not bundle.model.training


def test_images_are_not_rescaled(base_config):
    bundle = load_base(base_config)
    side = bundle.image_size
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    values = prompt_inputs(bundle, load_prompt("distill"), [picture])["pixel_values"].flatten().sort().values
    images = bundle.processor.image_processor
    scaled = np.asarray(picture, dtype=np.float64) / 255
    expected = ((scaled - np.array(images.image_mean)) / np.array(images.image_std)).ravel()
    # Qwen-VL shows each patch twice, as two frames of a film.
    expected = np.sort(np.repeat(expected, len(values) // expected.size))
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)


def test_an_unsupported_image_size_is_rejected(base_config):
    processor = load_base(base_config).processor
    with pytest.raises(ModelError, match="px, not 70"):
        set_image_size(processor, 70)


@pytest.mark.parametrize("stock", [Qwen3VLProcessor, SmolVLMProcessor])
def test_a_processor_without_video_runs_the_stock_code(stock, tmp_path):
    """With or without torchvision: image and text code is inherited, not rewritten."""
    from semanticface.models.processors import _PicturesOnly, without_video

    short = without_video(stock)
    assert issubclass(short, stock)
    assert short.__name__ == stock.__name__
    changed = {name for name in vars(_PicturesOnly) if not name.startswith("__")} - {"_abc_impl"}
    assert changed == {"get_attributes", "from_args_and_dict", "apply_chat_template"}
    assert short.__call__ is ProcessorMixin.__call__
    assert short.replace_image_token is stock.replace_image_token


def test_qwen_has_a_token_for_every_merged_patch(tmp_path):
    bundle = load_base(ModelConfig(str(tiny_models.qwen3_vl(tmp_path / "m")), image_size=96))
    inputs = prompt_inputs(bundle, load_prompt("distill"), [Image.new("RGB", (96, 96))] * 2)
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]] * 2
    assert (inputs["input_ids"] == bundle.model.config.image_token_id).sum(1).tolist() == [9, 9]
    assert torch.equal(inputs["mm_token_type_ids"] == 1, inputs["input_ids"] == bundle.model.config.image_token_id)


def test_smolvlm_does_not_split_the_image(tmp_path):
    bundle = load_base(ModelConfig(str(tiny_models.smolvlm(tmp_path / "m"))))
    inputs = prompt_inputs(bundle, load_prompt("distill"), [Image.new("RGB", (32, 32))])
    assert inputs["pixel_values"].shape == (1, 1, 3, 32, 32)
    shown = "<fake_token_around_image><global-img>" + "<image>" * 4 + "<fake_token_around_image>"
    assert shown in bundle.tokenizer.decode(inputs["input_ids"][0])


def test_missing_files_are_named(base_config, tmp_path):
    folder = copied(base_config.base, tmp_path)
    for name in ("tokenizer.json", "config.json"):
        content = (folder / name).read_text()
        (folder / name).unlink()
        with pytest.raises(ModelError, match=f"lacks {name}"):
            load_base(ModelConfig(str(folder)))
        (folder / name).write_text(content)
    (folder / "model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(ModelError, match="holds no weights"):
        load_base(ModelConfig(str(folder)))


def test_missing_shards_are_named(tmp_path):
    folder = tiny_models.fast_vlm(tmp_path / "m")
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        load_base(ModelConfig(str(folder)))


def test_pickles_are_rejected(base_config, adapter, tmp_path):
    folder = copied(base_config.base, tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*Convert it to safetensors"):
        load_trained(folder)
    folder = copied(adapter, tmp_path / "adapter")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.bin is a pickle"):
        load_trained(folder)


@pytest.mark.parametrize("size", [0, 5000])
def test_truncated_weights_are_rejected(base_config, tmp_path, size):
    folder = copied(base_config.base, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ModelError, match="does not load"):
        load_base(ModelConfig(str(folder)))


def test_weights_that_lack_a_layer_are_rejected(base_config, tmp_path):
    folder = copied(base_config.base, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "q_proj" in name)
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=gone.replace(".", r"\.").rpartition("model")[2]):
        load_base(ModelConfig(str(folder)))


def test_unknown_names_are_rejected(tmp_path):
    with pytest.raises(ModelError, match="no model 'no/such-model'"):
        load_trained("no/such-model")
    (tmp_path / "file.safetensors").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(tmp_path / "file.safetensors")
    with pytest.raises(ConfigError, match="warp9"):
        choose_device("warp9")
    assert resolve_model("nano") == (NANO, None)


def test_only_the_language_layers_are_quantized(base_config):
    whole = load_base(base_config)
    prefix = language_prefix(whole.model)
    small = load_base(ModelConfig(base_config.base, quantize="nf4", image_size=base_config.image_size))
    kinds = {
        name: type(module).__name__
        for name, module in small.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    }
    assert {kind for name, kind in kinds.items() if name.startswith(prefix)} == {"Linear4bit"}
    assert {kind for name, kind in kinds.items() if not name.startswith(prefix)} == {"Linear"}
    near, exact = logits(small), logits(whole)
    assert not torch.equal(near, exact)
    assert torch.corrcoef(torch.stack([near.flatten(), exact.flatten()]))[0, 1] > 0.9


def test_four_bit_layers_pass_gradients_after_an_evaluation(base_config):
    bundle = add_lora(load_base(ModelConfig(base_config.base, quantize="nf4", image_size=base_config.image_size)), LORA)
    ids = torch.arange(20, 40)[None]

    def gradients() -> list[torch.Tensor]:
        bundle.model.train()
        bundle.model.zero_grad()
        bundle.model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for n, p in bundle.model.named_parameters() if "lora_B" in n]

    before = gradients()
    logits(bundle)
    assert all(torch.equal(*pair) for pair in zip(before, gradients(), strict=True))


# LoRA


def test_lora_is_on_language_layers_and_starts_without_effect(base_config):
    plain = load_base(base_config)
    before = logits(plain)
    prefix = language_prefix(plain.model)
    bundle = add_lora(plain, LORA)
    trainable = [name for name, parameter in bundle.model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora_" in name and f".{prefix}." in name for name in trainable)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trainable} == set(LORA.target_modules)
    assert torch.equal(logits(bundle), before)


def test_lora_can_include_the_projector(base_config):
    bundle = add_lora(load_base(base_config), LoraSettings(r=2, projector=True))
    outside = [
        name
        for name, parameter in bundle.model.named_parameters()
        if parameter.requires_grad and "lora_A" in name and not any(target in name for target in LORA.target_modules)
    ]
    assert outside
    assert all(any(part in name for part in ("multi_modal_projector", "connector", "merger")) for name in outside)


def test_an_unknown_target_module_is_rejected(base_config):
    with pytest.raises(ConfigError, match=r"no language layer is called c_attn; there are .*q_proj"):
        add_lora(load_base(base_config), LoraSettings(target_modules=("q_proj", "c_attn")))


# Adapters


def test_a_saved_adapter_is_restored(base_config, adapter):
    expected = logits(trained(base_config))
    names = ["adapter_config.json", "adapter_model.safetensors", "semanticface.json"]
    assert sorted(path.name for path in adapter.iterdir()) == names
    merged, apart = load_trained(adapter), load_trained(adapter, trainable=True)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(apart), expected)
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    assert any(parameter.requires_grad for parameter in apart.model.parameters())
    assert merged.image_size == tiny_models.SIDE[base_config.base.rsplit("/", 1)[1]]
    assert merged.recipe == read_recipe(adapter)
    assert merged.recipe["metrics"] == {"eval_loss": 1.0}
    assert merged.recipe["prompt"]["sha256"] == load_prompt("distill").sha256


def test_an_adapter_loads_on_a_four_bit_base(adapter):
    bundle = load_trained(adapter, quantize="nf4")
    assert any(type(module).__name__ == "Linear4bit" for module in bundle.model.modules())
    assert logits(bundle).isfinite().all()


def test_an_untrained_adapter_is_rejected(base_config, tmp_path):
    save(add_lora(load_base(base_config), LORA), base_config, tmp_path / "fresh")
    with pytest.raises(ModelError, match="untrained: every lora_B is zero"):
        load_trained(tmp_path / "fresh")


def rewrite(folder, change) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(change(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.replace("self_attn", "attention"): value for name, value in tensors.items()},
        lambda tensors: dict(list(tensors.items())[1:]),
        lambda tensors: tensors | {"base_model.model.extra.lora_A.weight": torch.zeros(1)},
    ],
    ids=["renamed", "missing", "unexpected"],
)
def test_an_adapter_with_other_keys_is_rejected(adapter, tmp_path, change):
    folder = copied(adapter, tmp_path)
    rewrite(folder, change)
    with pytest.raises(ModelError, match="are not those of its base's layers"):
        load_trained(folder)


def test_an_adapter_of_other_shapes_is_rejected(adapter, tmp_path):
    folder = copied(adapter, tmp_path)
    rewrite(folder, lambda tensors: {name: value[..., :3].contiguous() for name, value in tensors.items()})
    with pytest.raises(ModelError, match="does not fit its base"):
        load_trained(folder)


def test_an_adapter_that_changes_nothing_is_rejected(adapter, tmp_path):
    folder = copied(adapter, tmp_path)
    rewrite(folder, lambda tensors: {name: value * (1 if "lora_B" in name else 0) for name, value in tensors.items()})
    with pytest.raises(ModelError, match="does not change its base's logits"):
        load_trained(folder)


def test_an_adapter_is_rejected_on_a_base_that_has_changed(architecture, tmp_path):
    base = tiny_models.BUILD[architecture](tmp_path / "base")
    config = ModelConfig(str(base), image_size=tiny_models.SIDE[architecture])
    save(trained(config), config, tmp_path / "adapter")
    tensors = load_file(base / "model.safetensors")
    save_file({name: value * 1.01 for name, value in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="trained on other weights than those now in"):
        load_trained(tmp_path / "adapter")


@pytest.mark.parametrize("name", ["semanticface.json", "adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_folder_that_lacks_a_file_is_rejected(adapter, tmp_path, name):
    folder = copied(adapter, tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_trained(folder)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{half"])
def test_a_damaged_recipe_is_rejected(adapter, tmp_path, text):
    folder = copied(adapter, tmp_path)
    (folder / "semanticface.json").write_text(text)
    with pytest.raises(ModelError, match=r"semanticface\.json"):
        load_trained(folder)


# Settings


def settings_file(tmp_path, **values):
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_settings_are_read_strictly(tmp_path):
    read = read_settings(settings_file(tmp_path, r=8, lora_dropout="5e-2", target_modules=["q_proj"]), LoraSettings)
    assert read == LoraSettings(r=8, lora_dropout=0.05, target_modules=("q_proj",))
    assert read_settings(settings_file(tmp_path), LoraSettings, ["r=2", "projector=true"]) == LoraSettings(
        r=2, projector=True
    )
    for values, message in [
        ({"lora_alphas": 8}, r"some\.yaml: unknown key lora_alphas; did you mean lora_alpha\?"),
        ({"r": "eight"}, "r must be a whole number, not 'eight'"),
        ({"r": True}, "r must be a whole number, not True"),
        ({"r": 0}, "lora.r must be from 1 to 1024, not 0"),
        ({"lora_dropout": ".nan"}, "lora_dropout must be a number"),
        ({"target_modules": "q_proj"}, "target_modules must be a list"),
        ({"projector": "yes please"}, "projector must be true or false"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_settings(settings_file(tmp_path, **values), LoraSettings)


@pytest.mark.parametrize("override", ["r", "=3", "r=[", "r.more=3"])
def test_a_malformed_override_is_rejected(tmp_path, override):
    with pytest.raises(ConfigError, match="--set"):
        read_settings(settings_file(tmp_path, r=3), LoraSettings, [override])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just text", "", "\xff"])
def test_a_config_that_is_no_mapping_is_rejected(tmp_path, text):
    (tmp_path / "bad.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_settings(tmp_path / "bad.yaml", LoraSettings)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_settings(tmp_path / "none.yaml", LoraSettings)


def test_saving_an_adapter_in_training_does_not_access_the_hub(tmp_path, monkeypatch):
    """peft saves checkpoints itself, and looks up the base's config by the name in the adapter."""
    base = ModelConfig("nano")
    save(trained(base), base, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "nano"
    model, asked = load_trained(tmp_path / "adapter", trainable=True).model, []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *names: asked.append(names))
    model.save_pretrained(tmp_path / "checkpoint")
    assert not asked
