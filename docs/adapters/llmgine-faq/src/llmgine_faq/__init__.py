"""A provider that answers from a file of questions."""

import tomllib
from collections.abc import AsyncGenerator, Mapping
from difflib import get_close_matches

from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderCapabilities,
    unfold,
)
from llmgine.errors import ConfigurationError, InvalidRequestError

__all__ = ["FaqProvider", "build"]


class FaqProvider:
    """Gives the answer to the question that is most like the last message."""

    name = "faq"
    capabilities = ProviderCapabilities(tools=False, response_format=False, media=False)

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = {question.casefold(): answer for question, answer in answers.items()}

    async def complete(self, request: LLMRequest) -> LLMResponse:
        if request.tools or request.tool_choice or request.response_format:
            text = "the FAQ provider answers in plain text and calls no tools"
            raise InvalidRequestError(text, provider=self.name)
        asked = request.messages[-1].text.casefold() if request.messages else ""
        known = get_close_matches(asked, self._answers, n=1)
        text = self._answers[known[0]] if known else "I don't know."
        return LLMResponse(message=ChatMessage.assistant(text), model="faq", provider=self.name)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        for chunk in unfold(await self.complete(request)):
            yield chunk


def build(config: ApplicationConfig) -> LLMProvider:
    """Make the provider that `provider.name = "llmgine_faq:build"` names."""
    path = config.folder / config.provider.options.get("file", "faq.toml")
    try:
        answers = tomllib.loads(path.read_text("utf-8"))["answers"]
    except (OSError, ValueError, KeyError) as error:
        expected = f"expected a file with a table [answers] at {path}"
        raise ConfigurationError(f"provider.options.file: {expected}, found: {error!r}") from error
    return FaqProvider(answers)
