"""Loading and saving vision-language models and adapters, nano, and the tokens of an answer."""
