"""OpenAI's chat completions as data, for every adapter whose server or library speaks them."""
