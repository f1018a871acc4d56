"""Random weights that answer differently to every prompt and picture, and quickly; for the tests of decoding."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def quotes(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return how many quotes each token has; float32[vocabulary]."""
    return torch.tensor([float(token.count('"')) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])


def make_lively(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Draw every weight anew, wide enough that the model prefers some tokens clearly and heeds what it is shown.

    As transformers draws them, all tokens are nearly as likely, and pictures drown among the words of a prompt. Tokens
    with a quote are made likelier than others, so that texts are short and tests quick.
    """
    torch.manual_seed(1)
    model.lm_head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                attention = 4.0 if name.endswith("q_proj.weight") else 1.0
                weight.normal_(0, attention * weight[0].numel() ** -0.5)
        model.get_input_embeddings().weight.normal_()
        model.lm_head.weight *= 2
        model.lm_head.bias.copy_(6 * quotes(tokenizer).clamp(max=1))
