"""Zero-shot evaluation of any vision-language model, local or behind a server."""
