"""Whatever the contracts can hold survives the codec; whatever else comes is a CodecError."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.contracts import chat, codec, events, llm, messages
from llmgine.contracts.chat import (
    ChatMessage,
    JsonValue,
    MediaPart,
    OpaquePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts.codec import decode, encode, registered_types
from llmgine.contracts.events import ResolveToolApproval
from llmgine.contracts.llm import (
    JsonObjectFormat,
    JsonSchemaFormat,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    NamedTool,
    PartEnd,
    Reasoning,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolDefinition,
    Usage,
    UsageUpdate,
)
from llmgine.contracts.messages import CommandResult, ErrorInfo, Message
from llmgine.errors import CodecError

# Lone surrogates included; two in a row JSON would join, and the codec refuses.
_pair = re.compile("[\ud800-\udbff][\udc00-\udfff]")
texts = st.text(st.characters(codec=None), max_size=12).filter(lambda text: not _pair.search(text))
keys = st.text(max_size=6) | st.sampled_from(["type", "value", "type_"])
names = st.sampled_from(["TextPart", "$float", "$dict", "object", "Unheard"])
floats = st.floats(allow_nan=False)
ints = st.integers() | st.integers(-(10**80), 10**80)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | ints | floats | texts | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(keys, json_values, max_size=3)
maybe_text = st.none() | texts
maybe_data = st.none() | json_objects
counts = st.none() | st.integers(0, 10**6)

text_parts = st.builds(TextPart, text=texts, provider_data=maybe_data)
media_parts = st.builds(
    MediaPart, kind=st.sampled_from(["image", "audio"]), data=st.binary(), name=maybe_text
) | st.builds(MediaPart, kind=st.just("document"), url=texts, provider_data=maybe_data)
thinking_parts = st.builds(
    ThinkingPart,
    text=texts,
    signature=maybe_text,
    redacted=maybe_text,
    id=maybe_text,
    provider=maybe_text,
    provider_data=maybe_data,
)
calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts, provider_data=maybe_data)
results = st.builds(
    ToolResult,
    tool_call_id=texts,
    name=texts,
    content=texts | st.lists(text_parts | media_parts, max_size=2).map(tuple),
    is_error=st.booleans(),
    error_code=maybe_text,
)
parts: st.SearchStrategy[Part] = st.one_of(
    text_parts,
    media_parts,
    thinking_parts,
    calls,
    results,
    st.builds(RefusalPart, text=texts),
    st.builds(OpaquePart, provider=st.sampled_from(["openai", ""]), data=json_objects),
)
chats = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    parts=st.lists(parts, max_size=3).map(tuple),
    id=maybe_text,
    name=maybe_text,
    provider_data=maybe_data,
)


def _tool(name: str, schema: dict[str, Any], strict: bool | None) -> ToolDefinition:
    if strict is None:
        return {
            "type": "function",
            "function": {"name": name, "description": "", "parameters": schema},
        }
    return {
        "type": "function",
        "function": {"name": name, "description": "", "parameters": schema, "strict": strict},
    }


usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    details=st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
requests = st.builds(
    LLMRequest,
    messages=st.lists(chats, max_size=2).map(tuple),
    model=texts,
    tools=st.lists(
        st.builds(_tool, texts, json_objects, st.none() | st.booleans()), max_size=2
    ).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none", "required"])
    | st.builds(NamedTool, name=texts),
    parallel_tool_calls=st.none() | st.booleans(),
    temperature=st.none() | floats,
    stop=st.lists(texts, max_size=2).map(tuple),
    response_format=st.none()
    | st.builds(JsonObjectFormat)
    | st.builds(JsonSchemaFormat, name=texts, schema=json_objects),
    reasoning=st.none() | st.builds(Reasoning, effort=maybe_text, budget_tokens=counts),
    provider_options=json_objects,
)
responses = st.builds(
    LLMResponse,
    message=chats,
    id=texts,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "unknown"]),
    usage=usages,
    created=st.none() | floats,
    provider_data=maybe_data,
)
chunks: st.SearchStrategy[LLMChunk] = st.one_of(
    st.builds(StreamStart, id=texts, created=st.none() | floats),
    st.builds(TextDelta, index=st.integers(0, 9), text=texts),
    st.builds(ThinkingDelta, text=texts, signature=maybe_text),
    st.builds(ToolCallDelta, id=texts, name=texts, arguments=texts),
    st.builds(PartEnd, part=st.none() | parts),
    st.builds(UsageUpdate, usage=usages),
    st.builds(StreamEnd, usage=st.none() | usages, provider_data=maybe_data),
)
infos = st.builds(ErrorInfo, texts, texts, texts)
any_values: st.SearchStrategy[object] = st.recursive(
    st.one_of(
        json_values,
        st.binary(),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False),
        chats,
        infos,
    ),
    lambda inner: (
        st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.integers() | st.booleans(), inner, max_size=2)
        | st.frozensets(st.integers(), max_size=2)
    ),
    max_leaves=6,
)

own: dict[str, st.SearchStrategy[Any]] = {
    "id": texts,
    "timestamp": floats,
    "session_id": maybe_text,
    "parent_id": maybe_text,
    "metadata": st.dictionaries(st.text(max_size=4), texts, max_size=2),
}
approvals = st.builds(
    ResolveToolApproval, **own, call_id=texts, approved=st.booleans(), reason=texts
)
command_results = st.builds(
    CommandResult,
    value=any_values,
    error=st.none() | infos,
    status=st.sampled_from(["ok", "error", "cancelled"]),
    duration=floats,
)
attributes = st.dictionaries(st.text(max_size=4), texts | ints | floats | st.booleans(), max_size=3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "approved": st.booleans(),
    "attributes": attributes,
    "call": calls,
    "call_id": texts,
    "chunk": chunks,
    "command": approvals,
    "duration": floats,
    "error": infos,
    "event": st.builds(events.SessionStartEvent, **own),
    "expires_at": floats,
    "handler": texts,
    "index": st.integers(),
    "length": st.integers(0),
    "level": st.sampled_from(["debug", "info", "warning", "error", "critical"]),
    "name": texts,
    "provider": texts,
    "reason": texts,
    "request": requests,
    "response": responses,
    "text": texts,
    "time_to_first_chunk": st.none() | floats,
    "unit": texts,
    "value": floats,
}


def _messages_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Build a message from its fields' names; a `result` differs between events."""
    given_fields: dict[str, st.SearchStrategy[Any]] = dict(own)
    for field in dataclasses.fields(kind):
        if field.name == "result":
            given_fields["result"] = (
                results if kind is events.ToolExecuteResultEvent else command_results
            )
        elif field.name in FIELDS:
            given_fields[field.name] = FIELDS[field.name]
    return st.builds(kind, **given_fields)


MESSAGES = [
    kind
    for kind in registered_types()
    if issubclass(kind, Message) and kind.__module__ == events.__name__
]


def same(left: object, right: object) -> bool:
    """Compare messages by their fields, and everything else as Python does, types included."""
    if isinstance(left, Message) and isinstance(right, Message):
        assert dataclasses.is_dataclass(left)
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name))
            for field in dataclasses.fields(left)
        )
    if isinstance(left, CommandResult) and isinstance(right, CommandResult):
        return all(
            same(getattr(left, field.name), getattr(right, field.name))
            for field in dataclasses.fields(left)
        )
    return type(left) is type(right) and left == right


def strict_json(data: bytes) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_comes_back(kind: type[Message]) -> None:
    @settings(max_examples=15)
    @given(_messages_of(kind))
    def comes_back(message: Message) -> None:
        data = encode(message)
        strict_json(data)
        again = decode(data)
        assert again is not message
        assert same(again, message)

    comes_back()


@settings(max_examples=40)
@given(st.one_of(chats, requests, responses, chunks, usages, parts))
def test_every_value_comes_back(value: object) -> None:
    data = encode(value)
    strict_json(data)
    assert same(decode(data), value)


@settings(max_examples=60)
@given(any_values)
def test_what_declares_nothing_comes_back(value: object) -> None:
    assert same(decode(encode(value)), value)


@settings(max_examples=60)
@given(json_values | st.floats())
def test_numbers_that_json_lacks_are_marked(value: JsonValue) -> None:
    data = encode(TextPart(text="", provider_data={"x": value}))
    strict_json(data)
    found = decode(data, TextPart).provider_data
    assert found is not None
    if isinstance(value, float) and math.isnan(value):
        assert isinstance(found["x"], float)
        assert math.isnan(found["x"])
    else:
        assert same(found["x"], value)


@settings(max_examples=100)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_noise_is_refused(data: bytes) -> None:
    _value_or_error(data)


def _value_or_error(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        decode(data)


def _paths(value: JsonValue, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        inside = [found for key in value for found in _paths(value[key], (*path, key))]
    elif isinstance(value, list):
        inside = [found for at, item in enumerate(value) for found in _paths(item, (*path, at))]
    return [path, *inside]


EDITS: list[Callable[[Any, Any, Any], None]] = [
    lambda holder, key, junk: holder.__setitem__(key, junk),
    lambda holder, key, _: holder.__delitem__(key),
    lambda holder, key, junk: holder.__setitem__(
        "extra" if isinstance(holder, dict) else key, junk
    ),
]


@settings(max_examples=100)
@given(st.one_of(requests, chats, _messages_of(events.CommandResultEvent)), json_values, st.data())
def test_tampered_data_is_read_or_refused(
    value: object, junk: JsonValue, data: st.DataObject
) -> None:
    """Any change to what was written gives a value of the contracts or a `CodecError`."""
    tree: Any = json.loads(encode(value))
    path = data.draw(st.sampled_from(_paths(tree)[1:]))
    holder = tree
    for step in path[:-1]:
        holder = holder[step]
    data.draw(st.sampled_from(EDITS))(holder, path[-1], junk)
    _value_or_error(json.dumps(tree).encode())


def test_every_contract_is_registered() -> None:
    for module in (chat, llm, events, messages):
        for name in module.__all__:
            kind = vars(module)[name]
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                assert kind in registered_types()


def test_the_data_names_the_class_by_its_plain_name() -> None:
    tree: Any = json.loads(encode(ChatMessage.user("hi")))
    assert tree["type"] == "ChatMessage"
    assert tree["parts"][0] == {"type": "TextPart", "text": "hi", "provider_data": None}
    assert codec.MAX_BYTES > 0
