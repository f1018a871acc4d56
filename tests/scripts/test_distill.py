"""Stage II on tiny models of the real architectures, through the real configs and the real script."""

import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from semanticface.config import read_settings
from semanticface.data.faces import load_faces
from semanticface.errors import ConfigError, ModelError, SemanticFaceError
from semanticface.models.inputs import prompt_inputs
from semanticface.models.loading import load_base, load_trained
from semanticface.prompts import load_prompt
from semanticface.recipe import read_recipe, write_recipe
from semanticface.training.datasets import EvalFaces
from semanticface.training.trainer import SanityCheckCallback, check_gradients, last_checkpoint
from tests.helpers import tiny_models
from tests.helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {"fast_vlm": "quickstart.yaml", "smolvlm": "smolvlm2_500m.yaml", "qwen3_vl": "qwen3_vl_4b.yaml"}


distill = load_script("train/distill.py")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    return tiny_models.faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / name) for name, build in tiny_models.BUILD.items()}


@pytest.fixture
def overrides(faces, models, tmp_path):
    """Return a test's changes of a config: paths and steps, then its own."""

    def build(*changes: str, architecture: str = "fast_vlm", output: str = "adapter") -> list[str]:
        paths = [f"dataset={faces}", f"output={tmp_path / output}", f"model.base={models[architecture]}"]
        # Exact comparisons: machines differ in bfloat16.
        return [*paths, "train.max_steps=3", "train.precision=model", *changes]

    return build


def run(changes: list[str], config: str = "quickstart.yaml") -> Path:
    return distill.distill(read_settings(ROOT / "train/configs" / config, distill.Settings, changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def largest_difference(first: Path, second: Path) -> float:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def log_history(folder: Path) -> list[dict]:
    return json.loads((last_checkpoint(folder / "checkpoints") / "trainer_state.json").read_text())["log_history"]


@pytest.fixture
def snapshots(monkeypatch) -> dict:
    """Parameters and buffers, such as batch norm statistics, before and after the training."""
    found: dict = {}

    def snapshot(model) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}

    def train_with_snapshots(bundle, *args):
        found["before"] = snapshot(bundle.model)
        found["trainable"] = {name for name, p in bundle.model.named_parameters() if p.requires_grad}
        result = train(bundle, *args)
        found["after"] = snapshot(bundle.model)
        return result

    train = distill.train
    monkeypatch.setattr(distill, "train", train_with_snapshots)
    return found


def assert_only_the_trainable_changed(snapshots: dict) -> None:
    changed = {name for name, value in snapshots["after"].items() if not torch.equal(value, snapshots["before"][name])}
    assert changed == snapshots["trainable"]
    assert changed


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_real_config_trains_the_right_parameters_and_a_working_adapter(
    architecture, overrides, snapshots, models, faces
):
    folder = run(overrides(architecture=architecture), CONFIGS[architecture])
    assert_only_the_trainable_changed(snapshots)
    settings = read_settings(ROOT / "train/configs" / CONFIGS[architecture], distill.Settings)
    assert any("lora" in name and "self_attn" in name for name in snapshots["trainable"])
    assert settings.lora.projector == any(
        part in name for name in snapshots["trainable"] for part in ("multi_modal_projector", "connector")
    )
    assert {snapshots["after"][name].dtype for name in snapshots["trainable"]} == {torch.float32}

    recipe = read_recipe(folder)
    assert recipe["kind"] == "adapter"
    assert recipe["prompt"]["sha256"] == load_prompt("distill").sha256
    assert recipe["settings"]["lora"]["r"] == settings.lora.r
    assert recipe["settings"]["data"]["train"]["rows"] == 8
    assert recipe["readout"] == settings.readout
    assert recipe["numbers"] == settings.numbers == "parallel"
    assert recipe["versions"]["transformers"]
    assert 0 < recipe["metrics"]["eval_loss"] < 20
    assert 0 <= recipe["metrics"]["eval_token_accuracy"] <= 1

    # The adapter loads with the training's picture size and differs from the base.
    bundle, base = load_trained(folder, dtype="float32"), load_base(settings.model.__class__(str(models[architecture])))
    side = 448 if architecture == "qwen3_vl" else tiny_models.SIDE[architecture]
    assert bundle.image_size == side
    inputs = prompt_inputs(bundle, load_prompt("distill"), [EvalFaces(load_faces(faces, "test"), side)[0].picture])
    with torch.no_grad():
        assert not torch.equal(bundle.model(**inputs).logits, base.model(**inputs).logits)


def test_the_loss_falls(overrides):
    changes = [
        "train.max_steps=30",
        "train.per_device_train_batch_size=4",
        "train.learning_rate=2e-2",
        "train.eval_steps=15",
    ]
    folder = run(overrides(*changes, "augment.mirror=0"))
    history = log_history(folder)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    assert evaluations[-1]["eval_loss"] < 0.7 * losses[0]
    assert evaluations[-1]["eval_token_accuracy"] > 0.3
    assert read_recipe(folder)["metrics"]["eval_loss"] == evaluations[-1]["eval_loss"]
    # TensorBoard has the same.
    events = EventAccumulator(str(folder / "logs")).Reload()
    assert [event.step for event in events.Scalars("eval/loss")] == [15, 30]
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "eval/number_mae"} <= set(events.Tags()["scalars"])


def test_a_batch_of_eight_equals_eight_accumulated_batches_of_one(overrides):
    whole = run(overrides("train.warmup_ratio=0", output="whole"))
    parts = run(
        overrides(
            "train.warmup_ratio=0",
            "train.per_device_train_batch_size=1",
            "train.gradient_accumulation_steps=8",
            output="parts",
        )
    )
    assert largest_difference(whole, parts) < 2e-6
    one, other = (read_recipe(folder)["metrics"] for folder in (whole, parts))
    assert one["eval_loss"] == pytest.approx(other["eval_loss"], abs=1e-6)


@pytest.mark.slow
def test_two_processes_with_batches_of_four_equal_one_of_eight(overrides):
    whole = run(overrides("train.warmup_ratio=0", output="whole"))
    parts = overrides("train.warmup_ratio=0", "train.per_device_train_batch_size=4", output="parts")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launcher, ROOT / "train/distill.py", "--config", ROOT / "train/configs/quickstart.yaml", "--set", *parts],
        env=os.environ | {"ACCELERATE_USE_CPU": "1"},
        check=True,
        capture_output=True,
    )
    assert largest_difference(whole, whole.parent / "parts") < 2e-6


@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
def test_a_model_that_cannot_be_packed_trains_alike(overrides, monkeypatch, numbers):
    packed = run(overrides("train.warmup_ratio=0", f"numbers={numbers}", output="packed"))
    monkeypatch.setattr("semanticface.training.trainer.padding_free", lambda model, tokenizer: contextlib.nullcontext())
    padded = run(overrides("train.warmup_ratio=0", f"numbers={numbers}", output="padded"))
    # Adam amplifies rounding of the smallest gradients; the weights have moved a hundred times as far.
    assert largest_difference(packed, padded) < 2e-5
    one, other = (read_recipe(folder)["metrics"] for folder in (packed, padded))
    assert one == pytest.approx(other, abs=1e-5)


def test_gradient_checkpointing_changes_nothing_but_memory(overrides):
    plain = run(overrides("train.warmup_ratio=0", output="plain"))
    checkpointed = run(overrides("train.warmup_ratio=0", "train.gradient_checkpointing=true", output="checkpointed"))
    assert largest_difference(plain, checkpointed) < 2e-6


KILL_AT_STEP_7 = """
import os, runpy, signal, sys
from semanticface.training.trainer import SanityCheckCallback
def end(self, args, state, control, **kwargs):
    if state.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
SanityCheckCallback.on_step_end = end
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_killed_training_resumes_exactly(overrides, capsys):
    """Dropout, augmentation, the order of the second epoch and the learning rate all resume."""
    changes = [
        "train.max_steps=10", "train.save_steps=5", "train.eval_steps=5", "train.per_device_train_batch_size=3",
        "lora.lora_dropout=0.2",
    ]  # fmt: skip
    whole_run = run(overrides(*changes, output="whole_run"))
    killed = whole_run.parent / "killed"
    command = [sys.executable, "-c", KILL_AT_STEP_7, str(ROOT / "train/distill.py")]
    options = ["--config", str(ROOT / "train/configs/quickstart.yaml"), "--set", *overrides(*changes, output="killed")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert last_checkpoint(killed / "checkpoints").name == "checkpoint-5"
    assert not (killed / "semanticface.json").exists()

    # A second kill while a checkpoint is written.
    incomplete = killed / "checkpoints" / "checkpoint-9"
    incomplete.mkdir()
    (incomplete / "trainer_state.json").write_text('{"global_step": 9')
    run(overrides(*changes, output="killed"))
    assert (killed / "adapter_model.safetensors").read_bytes() == (whole_run / "adapter_model.safetensors").read_bytes()
    assert read_recipe(killed)["metrics"] == read_recipe(whole_run)["metrics"]

    # A finished training is not repeated.
    capsys.readouterr()
    stamp = (killed / "adapter_model.safetensors").stat().st_mtime_ns
    run(overrides(*changes, output="killed"))
    assert "finished already" in capsys.readouterr().out
    assert (killed / "adapter_model.safetensors").stat().st_mtime_ns == stamp


def test_an_output_with_other_settings_is_refused(overrides):
    # Except where nothing was trained yet.
    with pytest.raises(ConfigError, match="no language layer is called nothing"):
        run(overrides("train.max_steps=1", "lora.target_modules=[nothing]"))
    run(overrides("train.max_steps=1"))
    with pytest.raises(ConfigError, match=r"train\.learning_rate was 0\.001, now 0\.002\. Use the same"):
        run(overrides("train.max_steps=1", "train.learning_rate=2e-3"))


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_four_bit_base_trains_on_the_cpu(architecture, overrides, snapshots):
    changes = [
        "model.quantize=nf4", "model.dtype=float32", "train.warmup_ratio=0", "train.eval_steps=1",
        "train.per_device_train_batch_size=2",
    ]  # fmt: skip
    changes += [f"model.image_size={tiny_models.SIDE[architecture]}", "train.max_steps=4", "train.learning_rate=1e-2"]
    folder = run(overrides(*changes, architecture=architecture))
    assert_only_the_trainable_changed(snapshots)
    evaluations = [entry["eval_loss"] for entry in log_history(folder) if "eval_loss" in entry]
    assert evaluations[-1] < evaluations[0]
    assert load_trained(folder, quantize="nf4").recipe["settings"]["model"]["quantize"] == "nf4"


# Wrong use


def fails(monkeypatch, capsys, config: Path, *changes: str) -> str:
    monkeypatch.setattr(sys, "argv", ["distill.py", "--config", str(config), "--set", *changes])
    assert distill.main() == 1
    return capsys.readouterr().err


def test_without_arguments_it_renders_the_quickstarts_faces_and_trains(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    few = distill.QUICKSTART_FACES.replace("--rows 800", "--rows 12 --size 96 --workers 1")
    monkeypatch.setattr(distill, "QUICKSTART_FACES", few)
    arguments = ["distill.py", "--set", "train.max_steps=1", "train.eval_rows=1", "train.per_device_train_batch_size=2"]
    for _ in range(2):  # the second time everything exists
        monkeypatch.setattr(sys, "argv", arguments)
        assert distill.main() == 0
    assert load_faces("outputs/quickstart/faces", "train").num_rows > 0
    assert read_recipe("outputs/quickstart/adapter")["settings"]["dataset"] == "outputs/quickstart/faces"


def test_errors_name_the_fix(monkeypatch, capsys, overrides, tmp_path):
    config = ROOT / "train/configs/quickstart.yaml"
    message = fails(monkeypatch, capsys, config, *overrides("train.learning_rat=1"))
    assert "quickstart.yaml: unknown key train.learning_rat; did you mean train.learning_rate?" in message
    assert "no such folder" in fails(monkeypatch, capsys, config, *overrides(f"dataset={tmp_path / 'none'}"))
    assert "made with emotion" in fails(monkeypatch, capsys, config, *overrides("emotion=false"))
    assert "no model 'none/such'" in fails(monkeypatch, capsys, config, *overrides("model.base=none/such"))
    assert "train.max_steps must be at least 1" in fails(monkeypatch, capsys, config, *overrides("train.max_steps=0"))
    assert "readout must be one of greedy, mean, median" in fails(
        monkeypatch, capsys, config, *overrides("readout=mode")
    )
    assert "config" in fails(monkeypatch, capsys, tmp_path / "none.yaml", *overrides())
    assert not (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_a_full_disk_is_one_clear_error_and_training_resumes(monkeypatch, capsys, overrides, tmp_path):
    """A file size limit fails writes as a full disk does, here inside a checkpoint."""
    config = ROOT / "train/configs/quickstart.yaml"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        message = fails(monkeypatch, capsys, config, *overrides("train.max_steps=2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "error: cannot write" in message
    assert list((tmp_path / "adapter" / "checkpoints").glob("checkpoint-*"))
    assert last_checkpoint(tmp_path / "adapter" / "checkpoints") is None
    assert not (tmp_path / "adapter" / "semanticface.json").exists()
    assert read_recipe(run(overrides("train.max_steps=2")))["kind"] == "adapter"


def test_recipes_hold_the_layout_and_old_ones_mean_sequential(overrides):
    folder = run(overrides("train.max_steps=1"))
    recipe = read_recipe(folder)
    write_recipe(folder, {key: value for key, value in recipe.items() if key != "numbers"})
    assert read_recipe(folder)["numbers"] == "sequential"
    write_recipe(folder, recipe | {"numbers": "backwards"})
    with pytest.raises(ModelError, match="numbers is 'backwards', not sequential or parallel"):
        read_recipe(folder)


@pytest.mark.parametrize("name", CONFIGS.values())
def test_configs_say_how_to_run_them(name):
    text = (ROOT / "train/configs" / name).read_text()
    assert f"accelerate launch train/distill.py --config train/configs/{name}" in text
    read_settings(ROOT / "train/configs" / name, distill.Settings)


def test_parameters_without_gradient_stop_the_training():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0](torch.ones(1, 2)).sum().backward()
    with pytest.raises(SemanticFaceError, match=r"2 of 4 trainable parameters got no gradient, such as 1\.weight"):
        check_gradients(model)
    model[1].requires_grad_(False)
    check_gradients(model)
    model[0].weight.grad[0, 0] = math.nan
    with pytest.raises(SemanticFaceError, match=r"the gradient of 0\.weight \(and 0 more\) is not finite"):
        check_gradients(model)
    with pytest.raises(SemanticFaceError, match="none at all"):
        check_gradients(model[1])


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    state = [TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(global_step=4), TrainerControl()]
    SanityCheckCallback().on_log(*state, logs={"loss": 1.0})
    SanityCheckCallback().on_log(*state, logs={"eval_loss": 1.0})
    with pytest.raises(SemanticFaceError, match="the loss became nan by step 4"):
        SanityCheckCallback().on_log(*state, logs={"loss": math.nan})


def test_every_training_checks_gradients(overrides, monkeypatch):
    """A layer without influence on the loss is noticed at the first step."""
    monkeypatch.setattr(
        "semanticface.training.trainer.chunked_cross_entropy", lambda hidden, *rest: hidden.detach().sum()
    )
    with pytest.raises((SemanticFaceError, RuntimeError), match="grad"):
        run(overrides())
