"""Random weights that give every prompt and picture a different, short answer; for the tests of decoding."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def count_quotes(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return how many quotes each token has; float32[V]."""
    return torch.tensor([float(token.count('"')) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])


def randomize_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Reinitialize every weight with a spread wide enough for clear preferences that depend on prompt and picture.

    With transformers' own initialization all tokens are nearly equally likely, and pictures hardly matter. Tokens with
    a quote are made more likely, so that texts are short and tests fast.
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
        model.lm_head.bias.copy_(6 * count_quotes(tokenizer).clamp(max=1))
