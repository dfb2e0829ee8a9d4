"""A run as AG-UI's events."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from ag_ui.core import (
    PROTOCOL_VERSION,
    AudioPart,
    BaseEvent,
    ContentPart,
    DataSource,
    DocumentPart,
    FileSource,
    ImagePart,
    PartSource,
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    StateSnapshotEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    TextPart,
    TokenUsage,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    UrlSource,
    VideoPart,
)
from ag_ui.encoder import EventEncoder
from llmgine import contracts as ours
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    MediaPart,
    PartEnd,
    RefusalPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)
from llmgine.contracts.chat import Part
from llmgine.contracts.messages import new_id

from api.completions.answering import Writer
from api.problems import Problem

__all__ = ["RunWriter"]

_MEDIA = {"image": ImagePart, "audio": AudioPart, "video": VideoPart, "document": DocumentPart}
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(slots=True)
class _Call:
    """A call that is left to the caller."""

    id: str
    bare: bool = True
    ended: bool = False


class RunWriter(Writer):
    """Writes a run as events.

    What the model says before its calls, the calls, and what it says after them are messages of
    their own, in the order in which the caller's history has them.

    Args:
        asked: what the caller asks.
    """

    def __init__(self, asked: RunAgentInput) -> None:
        self._asked = asked
        self._encode = EventEncoder().encode
        self._begun = False
        self._model = ""
        self._message = new_id()  # the assistant's message under way
        self._spoken = False  # whether its text, or calls in it, have come
        self._text_open = False
        self._reasoning = ""  # the id of the reasoning under way
        self._seen: set[int] = set()  # the parts that came piece by piece
        self._calls: dict[int, _Call] = {}

    def written(self, piece: LLMChunk | ChatMessage) -> bytes:
        """Return the events for a piece of the answer, or for tools that are run for it."""
        return self._encoded((*self._start(), *self._events(piece)))

    def failed(self, problem: Problem) -> bytes:
        """Return the event of a run that failed."""
        error = RunErrorEvent(message=problem.message, code=problem.code)
        return self._encoded((*self._start(), error))

    def _encoded(self, events: tuple[BaseEvent, ...]) -> bytes:
        return "".join(map(self._encode, events)).encode()

    def _start(self) -> Iterator[BaseEvent]:
        if self._begun:
            return
        self._begun = True
        asked = self._asked
        yield RunStartedEvent(
            thread_id=asked.thread_id,
            run_id=asked.run_id,
            parent_run_id=asked.parent_run_id,
            protocol_version=PROTOCOL_VERSION,
        )
        if asked.state:
            yield StateSnapshotEvent(snapshot=asked.state)

    def _events(self, piece: LLMChunk | ChatMessage) -> Iterator[BaseEvent]:
        if isinstance(piece, TextDelta):
            self._seen.add(piece.index)
            yield from self._text(piece.text)
        elif isinstance(piece, ThinkingDelta):
            self._seen.add(piece.index)
            yield from self._thought(piece.text)
        elif isinstance(piece, ToolCallDelta):
            yield from self._called(piece)
        elif isinstance(piece, PartEnd):
            yield from self._part(piece)
        elif isinstance(piece, ChatMessage):
            yield from self._run_here(piece)
        elif isinstance(piece, StreamStart):
            self._model = piece.model
        elif isinstance(piece, StreamEnd):
            yield from self._end(piece)

    def _text(self, text: str) -> Iterator[BaseEvent]:
        if not self._text_open:
            if not text.strip():  # providers refuse blank messages in a history
                return
            yield from self._close()
            if self._spoken:
                self._message = new_id()
            self._text_open = self._spoken = True
            yield TextMessageStartEvent(message_id=self._message, role="assistant")
        if text:
            yield TextMessageContentEvent(message_id=self._message, delta=text)

    def _thought(self, text: str) -> Iterator[BaseEvent]:
        if not text:
            return
        if not self._reasoning:
            yield from self._close()
            self._reasoning = new_id()
            yield ReasoningStartEvent(message_id=self._reasoning)
            yield ReasoningMessageStartEvent(message_id=self._reasoning)
        yield ReasoningMessageContentEvent(message_id=self._reasoning, delta=text)

    def _close(self) -> Iterator[BaseEvent]:
        """End the text or the reasoning under way."""
        if self._text_open:
            self._text_open = False
            yield TextMessageEndEvent(message_id=self._message)
        if self._reasoning:
            yield ReasoningMessageEndEvent(message_id=self._reasoning)
            yield ReasoningEndEvent(message_id=self._reasoning)
            self._reasoning = ""

    def _part(self, end: PartEnd) -> Iterator[BaseEvent]:
        """Tell a part that came as a whole, or the end of a call."""
        call = self._calls.get(end.index)
        if call is not None:
            yield from self._end_call(call)
        elif end.index not in self._seen and end.part is not None:
            yield from self._whole(end.index, end.part)

    def _whole(self, index: int, part: Part) -> Iterator[BaseEvent]:
        if isinstance(part, ours.TextPart | RefusalPart):
            yield from self._text(part.text)
        elif isinstance(part, ThinkingPart):
            yield from self._thought(part.text)
        elif isinstance(part, ToolCall):
            whole = ToolCallDelta(index=index, id=part.id, name=part.name, arguments=part.arguments)
            yield from self._called(whole)
            yield from self._end_call(self._calls[index])

    def _called(self, piece: ToolCallDelta) -> Iterator[BaseEvent]:
        """Tell a piece of a call that is left to the caller."""
        call = self._calls.get(piece.index)
        if call is None:
            call = self._calls[piece.index] = _Call(piece.id or new_id())
            yield from self._start_call(call.id, piece.name)
        if piece.arguments and not call.ended:
            call.bare = False
            yield ToolCallArgsEvent(tool_call_id=call.id, delta=piece.arguments)

    def _start_call(self, call_id: str, name: str) -> Iterator[BaseEvent]:
        yield from self._close()
        self._spoken = True
        yield ToolCallStartEvent(
            tool_call_id=call_id, tool_call_name=name, parent_message_id=self._message
        )

    def _end_call(self, call: _Call) -> Iterator[BaseEvent]:
        if call.ended:
            return
        call.ended = True
        if call.bare:
            yield ToolCallArgsEvent(tool_call_id=call.id, delta="{}")
        yield ToolCallEndEvent(tool_call_id=call.id)

    def _run_here(self, message: ChatMessage) -> Iterator[BaseEvent]:
        """Tell the calls of tools that are run here, or what came of them."""
        for call in message.tool_calls:
            yield from self._start_call(call.id, call.name)
            yield ToolCallArgsEvent(tool_call_id=call.id, delta=call.arguments or "{}")
            yield ToolCallEndEvent(tool_call_id=call.id)
        for result in message.tool_results:
            yield ToolCallResultEvent(
                message_id=new_id(),
                tool_call_id=result.tool_call_id,
                content=_content(result),
                role="tool",
            )
        if message.tool_results:
            self._message, self._spoken = new_id(), False

    def _end(self, end: StreamEnd) -> Iterator[BaseEvent]:
        yield from self._close()
        for call in self._calls.values():
            yield from self._end_call(call)
        pending = [call.id for call in self._calls.values()]
        yield RunFinishedEvent(
            thread_id=self._asked.thread_id,
            run_id=self._asked.run_id,
            result={"finishReason": end.finish_reason},
            outcome=RunFinishedSuccessOutcome(pending_tool_call_ids=pending or None),
            usage=_usage(end.usage, self._model),
        )


def _usage(usage: Usage | None, model: str) -> list[TokenUsage] | None:
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    told = TokenUsage(
        model=model or None,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=(usage.input_tokens or 0) + (usage.output_tokens or 0),
        reasoning_tokens=usage.reasoning_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        cache_write_input_tokens=usage.cache_write_tokens,
    )
    return [told]


def _content(result: ToolResult) -> str | list[ContentPart]:
    if isinstance(result.content, str):
        return result.content
    return [
        TextPart(text=part.text)
        if isinstance(part, ours.TextPart)
        else _MEDIA[part.kind](source=_source(part))
        for part in result.content
    ]


def _source(part: MediaPart) -> PartSource:
    if part.data is not None:
        value = b64encode(part.data).decode()
        return DataSource(value=value, mime_type=part.media_type or _UNKNOWN_TYPE)
    if part.url is not None:
        return UrlSource(value=part.url, mime_type=part.media_type)
    return FileSource(value=part.file_id or "", mime_type=part.media_type)
