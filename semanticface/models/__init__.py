"""Load and save vision-language models and adapters; nano; the token layouts of an answer."""
