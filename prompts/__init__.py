"""The prompts, as text; this file lets the folder be installed as the package ``semanticface.prompt_texts``."""
