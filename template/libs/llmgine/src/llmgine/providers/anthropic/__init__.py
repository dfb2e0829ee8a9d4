"""Claude, by way of Anthropic's own SDK: the extra `anthropic`."""

from llmgine.providers.anthropic.provider import AnthropicProvider, build

__all__ = ["AnthropicProvider", "build"]
