"""Model card, push to the Hugging Face Hub, demo Space."""
