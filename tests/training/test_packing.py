"""Packed rows compute what padded rows compute; models that cannot be packed are left alone."""

import pytest
import torch
from PIL import Image

from semanticface.models.answer_tokens import IGNORE_INDEX, to_model_inputs
from semanticface.models.loading import Bundle, LoraSettings, ModelConfig, add_lora, load_base
from semanticface.prompts import load_prompt
from semanticface.training.collator import Collator, Example, split_targets, token_losses
from semanticface.training.fused_ops import chunked_argmax, chunked_cross_entropy
from semanticface.training.packing import ATTENTION, pack, padding_free
from tests.helpers import tiny_models


@pytest.fixture(scope="module", params=tiny_models.BUILD)
def bundle(request, tmp_path_factory) -> Bundle:
    """Return a model with an adapter that is not zero."""
    folder = tiny_models.BUILD[request.param](tmp_path_factory.mktemp("models") / request.param)
    base = load_base(ModelConfig(str(folder), image_size=tiny_models.SIDE[request.param]))
    bundle = add_lora(base, LoraSettings(projector=request.param != "qwen3_vl"))
    torch.manual_seed(1)
    for name, parameter in bundle.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return bundle


def batch_of(bundle: Bundle, numbers: str) -> dict[str, torch.Tensor]:
    side = (bundle.image_size, bundle.image_size)
    learnt = zip(tiny_models.answers(3), ("all", "analysis", "numbers"), strict=True)
    rows = [Example(Image.new("RGB", side, (60 * i, 90, 200)), *part) for i, part in enumerate(learnt)]
    return Collator(bundle.processor, load_prompt("distill"), numbers=numbers, number_weight=3.0)(rows)


def gradients(bundle: Bundle, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {name: each for name, each in bundle.model.named_parameters() if each.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("numbers", ["sequential", "parallel"])
def test_loss_gradients_and_predictions_are_those_of_a_padded_batch(bundle, numbers):
    batch = batch_of(bundle, numbers)
    inputs, targets = split_targets(dict(batch))
    logits = bundle.model(**to_model_inputs(bundle.model, inputs), use_cache=False).logits
    losses = token_losses(logits, targets["labels"])
    wanted = (losses * targets["loss_weights"]).sum()
    directions = gradients(bundle, wanted)
    with padding_free(bundle.model, bundle.tokenizer) as head:
        inputs, packed = pack(bundle.model, batch)
        hidden = bundle.model(**inputs, use_cache=False).logits[0]
        found = chunked_cross_entropy(hidden, head, packed["labels"], packed["loss_weights"])
        ours = gradients(bundle, found)
        predictions = chunked_argmax(hidden.detach(), head, packed["labels"])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    for name, direction in directions.items():
        torch.testing.assert_close(ours[name], direction, rtol=1e-4, atol=1e-5 * float(direction.abs().max()))
    counts = (targets["labels"] != IGNORE_INDEX) & (targets["loss_weights"] > 0)
    assert torch.equal(predictions.tokens, logits.argmax(-1)[counts])
    torch.testing.assert_close(predictions.losses, losses[counts], rtol=1e-4, atol=1e-4)
    assert torch.equal(packed["owners"], counts.nonzero()[:, 0])
    assert torch.equal(packed["number_ids"], targets["number_ids"][counts])


def test_tokens_that_no_label_needs_are_left_out(bundle):
    """Neither padding nor tokens behind the last label are computed."""
    batch = batch_of(bundle, "sequential")
    inputs, targets = pack(bundle.model, batch)
    learnt = batch["loss_weights"] > 0
    last = [int(row.nonzero().max()) + 1 for row in learnt]
    assert inputs["rows"].lengths[:3] == tuple(last)
    # One more row fills the length up to a multiple.
    spare = sum(inputs["rows"].lengths[3:])
    assert spare < 64
    assert inputs["input_ids"].shape == (1, sum(last) + spare) == (1, inputs["position_ids"].shape[-1])
    assert sum(last) + spare < int(batch["attention_mask"].sum())
    assert int(inputs["logits_to_keep"].max()) < sum(last)
    assert len(targets["labels"]) == int(learnt.sum())


def test_the_model_is_restored(bundle):
    base = bundle.model.get_base_model()
    head, attention = base.get_output_embeddings(), base.get_decoder().config._attn_implementation
    with pytest.raises(RuntimeError, match="inside"), padding_free(bundle.model, bundle.tokenizer) as yielded:
        assert yielded is head
        assert base.get_decoder().config._attn_implementation == ATTENTION
        raise RuntimeError("inside")
    assert base.get_output_embeddings() is head
    assert base.get_decoder().config._attn_implementation == attention


def refused(bundle: Bundle) -> bool:
    """Whether the model cannot be packed; it must be unchanged then."""
    base = bundle.model.get_base_model()
    with padding_free(bundle.model, bundle.tokenizer) as head:
        assert (head is None) == (base.get_decoder().config._attn_implementation != ATTENTION)
        if head is None:
            assert isinstance(base.get_output_embeddings(), torch.nn.Linear)
        return head is None


def test_sliding_attention_and_transformed_logits_are_refused(bundle, monkeypatch):
    base = bundle.model.get_base_model()
    assert not refused(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(base.get_decoder().config, "layer_types", ["full_attention", "sliding_attention"], raising=False)
        assert refused(bundle)
    scaled = base.get_output_embeddings().register_forward_hook(lambda module, given, scores: scores * 1.1)
    assert refused(bundle)
    scaled.remove()
    assert not refused(bundle)
