"""AG-UI's input as what a model is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from ag_ui.core import (
    AssistantMessage,
    ContentPart,
    Context,
    DataSource,
    DeveloperMessage,
    Message,
    RunAgentInput,
    SystemMessage,
    TextPart,
    Tool,
    ToolMessage,
    UrlSource,
    UserMessage,
)
from llmgine import contracts as ours
from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    MediaPart,
    ToolCall,
    ToolDefinition,
    ToolResult,
    repaired,
)
from llmgine.contracts.protocols import ProviderCapabilities
from pydantic import TypeAdapter, ValidationError

from api.completions.messages import decoded
from api.problems import Problem

__all__ = ["request_of"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_PARAMETERS: dict[str, object] = {"type": "object", "properties": {}}
_SCHEMA = TypeAdapter(dict[str, object])
_SHOWN = 40


def request_of(asked: RunAgentInput, able: ProviderCapabilities, *, prompt: str) -> LLMRequest:
    """Return what a model is asked.

    Args:
        asked: what the caller asks.
        able: what the provider can do.
        prompt: the instructions where the conversation has none; may be empty.

    Raises:
        Problem: something of it can't be meant, or can't be done here.
    """
    if asked.resume:
        raise _refusal("resume", "no run waits here: each one ends with an answer or calls")
    if asked.tools and not able.tools:
        raise _refusal("tools", "the model behind this server calls none")
    said = repaired(list(_conversation(asked.messages, media=able.media)))
    if all(message.role == "system" for message in said):
        raise _refusal("messages", "expected at least one that isn't instructions")
    first = next(at for at, message in enumerate(said) if message.role != "system")
    instructions = said[:first]
    if prompt and all(message.role != "system" for message in said):
        instructions.append(ChatMessage.system(prompt))
    instructions += _told(asked.context or ())
    return LLMRequest(
        messages=(*instructions, *said[first:]), tools=tuple(_tools(asked.tools or ()))
    )


def _refusal(param: str, why: str) -> Problem:
    return Problem(message=f"{param}: {why}.", param=param)


def _told(context: Sequence[Context]) -> Iterator[ChatMessage]:
    """Return what the caller's application knows, as instructions."""
    if context:
        pieces = (f"{each.description}:\n{each.value}" for each in context)
        yield ChatMessage.system("\n\n".join(pieces))


def _conversation(messages: Sequence[Message], *, media: bool) -> Iterator[ChatMessage]:
    """Return a conversation, results that follow each other in one message."""
    names: dict[str, str] = {}
    read = (
        said
        for at, message in enumerate(messages)
        for said in _said(message, f"messages[{at}].content", names, media=media)
    )
    for is_tool, group in groupby(read, lambda said: said.role == "tool"):
        if is_tool:
            yield ChatMessage.tool(*(result for each in group for result in each.tool_results))
        else:
            yield from group


def _said(
    message: Message, where: str, names: dict[str, str], *, media: bool
) -> Iterator[ChatMessage]:
    """Return a message, unless it is reasoning or an activity: these are for the screen.

    Args:
        message: it.
        where: where its content stands in the request.
        names: those of the tools, by the ids of calls that came before; its own are added.
        media: whether the provider takes pictures, sound and documents.
    """
    if isinstance(message, ToolMessage):
        name = names.get(message.tool_call_id, "")
        yield ChatMessage.tool(_result(message, name, where, media=media))
    elif isinstance(message, AssistantMessage):
        names.update((call.id, call.function.name) for call in message.tool_calls or ())
        yield from _answer(message)
    elif isinstance(message, UserMessage):
        parts = tuple(_parts(message.content, where, media=media))
        yield ChatMessage(role="user", parts=parts, name=message.name)
    elif isinstance(message, SystemMessage | DeveloperMessage):
        yield replace(ChatMessage.system(message.content), name=message.name)


def _answer(message: AssistantMessage) -> Iterator[ChatMessage]:
    said = (message.content,) if message.content else ()
    calls = (
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
    )
    answer = ChatMessage.assistant(*said, *calls)
    if answer.parts:
        yield replace(answer, name=message.name)


def _result(message: ToolMessage, name: str, where: str, *, media: bool) -> ToolResult:
    content: str | tuple[ours.TextPart | MediaPart, ...]
    if isinstance(message.content, str):
        content = message.content or message.error or ""
    else:
        content = tuple(_parts(message.content, where, media=media))
    return ToolResult(
        tool_call_id=message.tool_call_id,
        name=name,
        content=content,
        is_error=message.error is not None,
    )


def _parts(
    content: str | Sequence[ContentPart], where: str, *, media: bool
) -> Iterator[ours.TextPart | MediaPart]:
    if isinstance(content, str):
        yield ours.TextPart(text=content)
        return
    if not content:
        raise _refusal(where, "expected a text or at least one part")
    for at, part in enumerate(content):
        if isinstance(part, TextPart):
            yield ours.TextPart(text=part.text)
        elif media:
            yield _media(part, f"{where}[{at}].source.value")
        else:
            text = f"the model behind this server reads text only, found {part.type}"
            raise _refusal(f"{where}[{at}]", text)


def _media(part: ContentPart, where: str) -> MediaPart:
    assert not isinstance(part, TextPart)  # noqa: S101 - that's read elsewhere
    source = part.source
    if isinstance(source, DataSource):
        data = decoded(source.value, where)
        return MediaPart(kind=part.type, media_type=source.mime_type, data=data)
    if not isinstance(source, UrlSource):
        return MediaPart(kind=part.type, media_type=source.mime_type, file_id=source.value)
    if not source.value.startswith(("http://", "https://")):
        raise _refusal(where, f"expected http(s)://, found {source.value[:_SHOWN]!r}")
    return MediaPart(kind=part.type, media_type=source.mime_type, url=source.value)


def _tools(tools: Sequence[Tool]) -> Iterator[ToolDefinition]:
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.name):
            text = f"expected 1 to 64 of a-z, A-Z, 0-9, _ and -, found {tool.name[:_SHOWN]!r}"
            raise _refusal(f"tools[{at}].name", text)
        if tool.name in seen:
            raise _refusal(f"tools[{at}].name", f"{tool.name!r} stands twice")
        seen.add(tool.name)
        yield {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _parameters(tool, f"tools[{at}].parameters"),
            },
        }


def _parameters(tool: Tool, where: str) -> dict[str, object]:
    if not tool.parameters:
        return dict(_NO_PARAMETERS)
    try:
        return _SCHEMA.validate_python(tool.parameters)
    except ValidationError:
        raise _refusal(where, "expected a JSON Schema, which is an object") from None
