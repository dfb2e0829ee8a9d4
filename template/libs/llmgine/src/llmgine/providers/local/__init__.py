"""A small language model on this machine's CPU: no key, no network, no great wisdom."""

from llmgine.providers.local.provider import LocalProvider, build

__all__ = ["LocalProvider", "build"]
