"""A provider without a model: the default until a real one is chosen, and the double for tests.

Without a script it says what it is, repeats what it hears and calls tools. With one, for tests:

    provider = ScriptedProvider(script=[
        "Hello!",                                       # a text
        ChatMessage.assistant(ToolCall(id="1", name="add", arguments='{"a": 1}')),
        RateLimitError("slow down", retry_after=2.0),   # an error, raised
        BrokenStream("Half an answer", after=1),        # breaks off after a chunk
        lambda request: f"{len(request.messages)} messages",
    ])
    ...
    provider.assert_finished()
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from llmgine.contracts import ChatMessage, LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.llm import StreamEnd, StreamStart
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.contracts.stream import ResponseBuilder, unfold
from llmgine.errors import ConfigurationError, ScriptError, StreamInterruptedError
from llmgine.providers.scripted_answers import answer, estimated_usage
from llmgine.settings import ProviderSettings

__all__ = ["BrokenStream", "ScriptStep", "ScriptedProvider", "build"]

_DELAY_OF_CHAT = 0.01

Answer: TypeAlias = str | ChatMessage | LLMResponse


@dataclass(frozen=True, slots=True)
class BrokenStream:
    """A step of a script: an answer whose stream breaks off.

    Attributes:
        answer: what the whole answer would be.
        after: how many pieces of it come through; its beginning isn't counted.
        error: what is raised then; by default a `StreamInterruptedError` with the partial answer.
    """

    answer: Answer
    after: int = 1
    error: Exception | None = None


ScriptStep: TypeAlias = (
    "Answer | Exception | BrokenStream | Callable[[LLMRequest], Answer | Exception | BrokenStream]"
)


class ScriptedProvider:
    """Answers from a script, or with a few useful words of its own; without key or network.

    With a script every call takes the next step, and a call beyond the last is a `ScriptError`.

    Args:
        script: the steps, in order; `None` lets the provider find its own words.
        name: the provider's name in events and errors.
        delay: seconds before each chunk of a stream; whole answers come at once.

    Attributes:
        requests: what a provider with a script was asked, in order.
    """

    def __init__(
        self,
        script: Iterable[ScriptStep] | None = None,
        *,
        name: str = "scripted",
        delay: float = 0.0,
    ) -> None:
        self.name = name
        self.requests: list[LLMRequest] = []
        self._delay = delay
        self._script = None if script is None else deque(script)

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Whatever is asked can be scripted."""
        return ProviderCapabilities()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            ScriptError: the script has no step left.
            Exception: the step is an error or a broken stream.
        """
        step = self._next(request)
        if isinstance(step, BrokenStream):
            raise step.error or StreamInterruptedError("the answer broke off", provider=self.name)
        return self._response(step, request)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the answer word by word.

        Raises:
            ScriptError: the script has no step left.
            Exception: the step is an error or a broken stream.
        """
        step = self._next(request)
        if isinstance(step, BrokenStream):
            broken, whole = step, step.answer
        else:
            broken, whole = None, step
        response = self._response(whole, request)
        builder = ResponseBuilder()
        left = math.inf if broken is None else broken.after
        for chunk in unfold(response):
            await asyncio.sleep(self._delay)
            if broken is not None and (left <= 0 or isinstance(chunk, StreamEnd)):
                raise broken.error or StreamInterruptedError(
                    "the answer broke off", provider=self.name, partial=builder.response()
                )
            builder.add(chunk)
            yield chunk
            if not isinstance(chunk, StreamStart):
                left -= 1

    def assert_finished(self) -> None:
        """Check that every step of the script was taken.

        Raises:
            ScriptError: steps are left over.
        """
        if self._script:
            raise ScriptError(
                f"{len(self._script)} step(s) of the script were never asked for, "
                f"the first of them {self._script[0]!r}"
            )

    def _next(self, request: LLMRequest) -> Answer | BrokenStream:
        if self._script is None:
            return answer(request)
        self.requests.append(request)
        if not self._script:
            asked = request.messages[-1].text if request.messages else ""
            raise ScriptError(
                f"call {len(self.requests)} is one more than the script has steps; asked: {asked!r}"
            )
        step = self._script.popleft()
        if callable(step):
            step = step(request)
        if isinstance(step, Exception):
            raise step
        return step

    def _response(self, step: Answer, request: LLMRequest) -> LLMResponse:
        if isinstance(step, LLMResponse):
            return replace(step, provider=step.provider or self.name)
        message = ChatMessage.assistant(step) if isinstance(step, str) else step
        return LLMResponse(
            message=message,
            model=request.model or self.name,
            provider=self.name,
            finish_reason="tool_calls" if message.tool_calls else "stop",
            usage=estimated_usage(request, message),
        )


def build(settings: ProviderSettings) -> LLMProvider:
    """Make the provider that `provider.name = "scripted"` names.

    Its one option is `delay`: seconds before each chunk, so that a person sees them stream.

    Raises:
        ConfigurationError: an option isn't known, or isn't a number of seconds.
    """
    unknown = sorted(settings.options.keys() - {"delay"})
    if unknown:
        raise ConfigurationError(
            f"provider.options.{unknown[0]}: the scripted provider knows only `delay`"
        )
    given = settings.options.get("delay", str(_DELAY_OF_CHAT))
    try:
        delay = float(given)
    except ValueError:
        delay = math.nan
    if not 0 <= delay < math.inf:
        raise ConfigurationError(f"provider.options.delay: expected seconds, got {given!r}")
    return ScriptedProvider(delay=delay)
