"""LoRA fine-tuning of any vision-language model, and pretraining of nano."""
