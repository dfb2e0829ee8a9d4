"""The parts of an answer, as far as they have come.

Text, reasoning, refusal and each tool call have an index of their own, in the order in which they
are sent back.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmgine.contracts import (
    LLMChunk,
    OpaquePart,
    PartEnd,
    RefusalPart,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
)
from llmgine.contracts.chat import JsonValue
from llmgine.providers._chat.calls import AnswerCalls
from llmgine.providers._sdk.shape import Fields, fields, items, joined, known, text

__all__ = ["AnswerParts"]

_THINKING, _TEXT, _REFUSAL, _CALLS = range(4)
# The field's name depends on the server; one of them sends both, saying the same.
_REASONING = ("reasoning_content", "reasoning")
_READ_OF_MESSAGE = ("role", "content", "refusal", "tool_calls", "function_call", *_REASONING)


class AnswerParts:
    """What a model has said so far.

    Args:
        provider: the provider's name.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._said: dict[int, list[str]] = {}
        self._calls = AnswerCalls(provider, _CALLS)
        self._opaque: list[Fields] = []
        self._extra: Fields = {}

    @property
    def refused(self) -> bool:
        """Whether the model has said why it doesn't answer."""
        return _REFUSAL in self._said

    @property
    def called(self) -> bool:
        """Whether it has called a tool."""
        return len(self._calls) > 0

    def read(self, delta: Fields) -> Iterator[LLMChunk]:
        """Yield what the next piece of the message says."""
        thought = next((found for name in _REASONING if (found := text(delta.get(name)))), "")
        if thought:
            self._said.setdefault(_THINKING, []).append(thought)
            yield ThinkingDelta(index=_THINKING, text=thought)
        yield from self._content(delta.get("content"))
        refusal = text(delta.get("refusal"))
        if refusal:
            self._said.setdefault(_REFUSAL, []).append(refusal)
        calls = items(delta.get("tool_calls"))
        if delta.get("function_call"):  # as older servers call their one tool
            calls = [*calls, {"function": delta["function_call"]}]
        for each in calls:
            yield from self._calls.read(fields(each))
        for name, value in known(delta, *_READ_OF_MESSAGE).items():
            self._extra[name] = joined(self._extra[name], value) if name in self._extra else value

    def ends(self) -> Iterator[LLMChunk]:
        """Yield the end of each part."""
        if _THINKING in self._said:
            thought = "".join(self._said[_THINKING])
            part = ThinkingPart(text=thought, provider=self._provider)
            yield PartEnd(index=_THINKING, part=part)
        if _TEXT in self._said:
            yield PartEnd(index=_TEXT)
        if _REFUSAL in self._said:
            refusal = RefusalPart(text="".join(self._said[_REFUSAL]))
            yield PartEnd(index=_REFUSAL, part=refusal)
        yield from self._calls.ends()
        rest = [*self._opaque, *([self._extra] if self._extra else [])]
        for at, data in enumerate(rest, start=_CALLS + len(self._calls)):
            yield PartEnd(index=at, part=OpaquePart(provider=self._provider, data=data))

    def _content(self, content: JsonValue) -> Iterator[LLMChunk]:
        """Yield the text of content, which some servers send as a list of parts."""
        for each in content if isinstance(content, list) else [content]:
            part = fields(each)
            if part and part.get("type") != "text":
                self._opaque.append(part)
            elif said := text(part.get("text") if part else each):
                self._said.setdefault(_TEXT, []).append(said)
                yield TextDelta(index=_TEXT, text=said)
