"""The HTTP API: OpenAI chat completions and /v1/face."""
