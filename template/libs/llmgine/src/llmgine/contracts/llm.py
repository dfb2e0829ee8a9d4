"""A call to a model: request, answer, and the chunks of a streamed answer.

The mapping of each field to the providers' wire formats is the providers' business; here stands
the smallest set that loses nothing of any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NotRequired, TypeAlias, TypedDict

from llmgine.contracts.chat import ChatMessage, JsonObject, JsonValue, Part, ToolCall

__all__ = [
    "USAGE_COUNTS",
    "FinishReason",
    "FunctionDefinition",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "LLMChunk",
    "LLMRequest",
    "LLMResponse",
    "NamedTool",
    "PartEnd",
    "Reasoning",
    "ResponseFormat",
    "StreamEnd",
    "StreamStart",
    "TextDelta",
    "ThinkingDelta",
    "ToolCallDelta",
    "ToolChoice",
    "ToolDefinition",
    "Usage",
    "UsageUpdate",
]

FinishReason = Literal[
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "refusal",
    "pause",
    "error",
    "cancelled",
    "unknown",
]


class FunctionDefinition(TypedDict):
    """A function as a model sees it; `parameters` is a JSON Schema (2020-12)."""

    name: str
    description: str
    parameters: dict[str, object]
    strict: NotRequired[bool]


class ToolDefinition(TypedDict):
    """A tool in OpenAI's wire shape."""

    type: Literal["function"]
    function: FunctionDefinition


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedTool:
    """The model must call this tool."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonObjectFormat:
    """The answer must be a JSON object, of any shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonSchemaFormat:
    """The answer must be JSON that fits a schema.

    Attributes:
        name: the schema's name, which some providers demand.
        schema: a JSON Schema (2020-12).
        strict: ask the provider to guarantee the fit.
    """

    name: str
    schema: JsonObject
    strict: bool = True


ResponseFormat: TypeAlias = JsonObjectFormat | JsonSchemaFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning:
    """How much a model may think before it answers.

    Attributes:
        effort: in words, such as `low` or `high`.
        budget_tokens: in tokens.
        summary: which summary of the reasoning to return, such as `auto`.
    """

    effort: str | None = None
    budget_tokens: int | None = None
    summary: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMRequest:
    """What a model is asked. `None` leaves a choice to the provider.

    Attributes:
        messages: the conversation so far, oldest first.
        model: the model's name; empty means the provider's default.
        tools: what the model may call.
        tool_choice: whether it may, must or must not call them.
        parallel_tool_calls: whether it may ask for several at once.
        max_output_tokens: the longest answer.
        temperature: randomness of the choice of words.
        top_p: share of probability to choose from.
        top_k: number of candidates to choose from.
        stop: texts that end the answer.
        seed: for answers that can be repeated, as far as a provider can.
        presence_penalty: against returning to a topic.
        frequency_penalty: against repeating words.
        response_format: the form of the answer, where text won't do.
        reasoning: how much to think.
        user_id: an opaque id of the end user, for the provider's abuse checks.
        metadata: labels for the provider's own records.
        timeout: seconds for the whole call.
        provider_options: fields that only one provider knows, sent as they are.
    """

    messages: tuple[ChatMessage, ...]
    model: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    user_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout: float | None = None
    provider_options: JsonObject = field(default_factory=dict[str, JsonValue])


def _sum(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return left if right is None else right
    return left + right


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of a call. `None` means not reported, which is not zero.

    Attributes:
        input_tokens: all input, cached input included.
        output_tokens: all output, reasoning included.
        cache_read_tokens: input that was read from the provider's cache.
        cache_write_tokens: input that was written to it.
        reasoning_tokens: output that was reasoning.
        details: further counts under the provider's own names.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    details: Mapping[str, int] = field(default_factory=dict[str, int])

    def __add__(self, other: Usage) -> Usage:
        """Return the sum; what neither side reports stays unreported."""
        counts = {name: _sum(getattr(self, name), getattr(other, name)) for name in USAGE_COUNTS}
        details = Counter(self.details)
        details.update(other.details)
        return Usage(**counts, details=dict(details))


USAGE_COUNTS = tuple(each.name for each in fields(Usage) if each.name != "details")
"""The counts that providers have in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMResponse:
    """A model's answer.

    Attributes:
        message: the answer itself, ready for the history.
        id: the provider's id of the answer.
        model: the model that answered, as the provider names it.
        provider: the provider's name.
        finish_reason: why it ended.
        finish_raw: the provider's own word for that.
        stop_sequence: which of the request's `stop` texts ended it.
        usage: the tokens it took.
        service_tier: the provider's class of service.
        created: when, in Unix seconds (UTC).
        request_id: the provider's id of the call, for its support.
        provider_data: what only one provider knows.
    """

    message: ChatMessage
    id: str = ""
    model: str = ""
    provider: str = ""
    finish_reason: FinishReason = "stop"
    finish_raw: str = ""
    stop_sequence: str | None = None
    usage: Usage = field(default_factory=Usage)
    service_tier: str | None = None
    created: float | None = None
    request_id: str | None = None
    provider_data: JsonObject | None = None

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks for, in order."""
        return self.message.tool_calls


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamStart:
    """The answer begins. The fields are those of `LLMResponse`."""

    id: str = ""
    model: str = ""
    provider: str = ""
    created: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDelta:
    """More text for the part at `index`."""

    index: int = 0
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingDelta:
    """More reasoning for the part at `index`; the signature comes once."""

    index: int = 0
    text: str = ""
    signature: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallDelta:
    """More of the tool call at `index`: id and name come once, arguments in pieces of text."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartEnd:
    """The part at `index` is complete.

    Attributes:
        index: the part's place in the message.
        part: the part itself, where deltas can't say it all: a picture, a refusal, encrypted
            reasoning, `provider_data`. It replaces what the deltas of this index said.
    """

    index: int = 0
    part: Part | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageUpdate:
    """The tokens so far: each count that it reports replaces the one reported before."""

    usage: Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamEnd:
    """The answer is complete. The fields are those of `LLMResponse`.

    Attributes:
        finish_reason: why it ended.
        finish_raw: the provider's own word for that.
        usage: as a last `UsageUpdate`.
        stop_sequence: which of the request's `stop` texts ended it.
        message_id: the provider's id of the message, where it isn't the answer's.
        service_tier: the provider's class of service.
        provider_data: what only one provider knows.
    """

    finish_reason: FinishReason = "stop"
    finish_raw: str = ""
    usage: Usage | None = None
    stop_sequence: str | None = None
    message_id: str | None = None
    service_tier: str | None = None
    provider_data: JsonObject | None = None


LLMChunk: TypeAlias = (
    StreamStart | TextDelta | ThinkingDelta | ToolCallDelta | PartEnd | UsageUpdate | StreamEnd
)
