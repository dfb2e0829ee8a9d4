"""A folded stream is the answer that would have come whole."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMResponse,
    MediaPart,
    OpaquePart,
    PartEnd,
    RefusalPart,
    ResponseBuilder,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageUpdate,
    closing,
    fold,
    fold_stream,
    unfold,
)
from llmgine.errors import StreamInterruptedError

texts = st.text(max_size=20)
parts = st.one_of(
    st.builds(TextPart, text=texts),
    st.builds(TextPart, text=texts, provider_data=st.just({"cached": True})),
    st.builds(ThinkingPart, text=texts, signature=st.none() | texts),
    st.builds(ThinkingPart, redacted=texts, provider=st.just("p")),
    st.builds(ToolCall, id=st.text(min_size=1), name=st.text(min_size=1), arguments=texts),
    st.builds(RefusalPart, text=texts),
    st.builds(MediaPart, kind=st.just("image"), data=st.binary(max_size=4)),
    st.builds(OpaquePart, provider=texts, data=st.just({"a": 1})),
)
counts = st.none() | st.integers(0, 100)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    details=st.dictionaries(texts, st.integers(), max_size=2),
)
responses = st.builds(
    LLMResponse,
    message=st.builds(
        ChatMessage,
        role=st.just("assistant"),
        parts=st.lists(parts, max_size=4).map(tuple),
        id=st.none() | texts,
    ),
    id=texts,
    model=texts,
    provider=texts,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "refusal"]),
    finish_raw=texts,
    stop_sequence=st.none() | texts,
    usage=usages,
    service_tier=st.none() | texts,
    created=st.none() | st.floats(allow_nan=False),
    request_id=st.none() | texts,
    provider_data=st.none() | st.just({"x": [1]}),
)


def _split(text: str, draw: st.DrawFn) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


@st.composite
def streams(draw: st.DrawFn) -> tuple[LLMResponse, list[LLMChunk]]:
    """Draw an answer, and its chunks cut at random places, its parts told across each other."""
    response = draw(responses)
    lanes: list[list[LLMChunk]] = []
    for index, part in enumerate(response.message.parts):
        lane: list[LLMChunk] = []
        if isinstance(part, TextPart) and part.provider_data is None:
            lane += [TextDelta(index=index, text=piece) for piece in _split(part.text, draw)]
        elif isinstance(part, ThinkingPart) and part.redacted is None:
            lane += [ThinkingDelta(index=index, text=piece) for piece in _split(part.text, draw)]
            lane.append(ThinkingDelta(index=index, signature=part.signature))
        elif isinstance(part, ToolCall) and part.arguments:
            lane.append(ToolCallDelta(index=index, id=part.id, name=part.name))
            lane += [
                ToolCallDelta(index=index, arguments=piece)
                for piece in _split(part.arguments, draw)
            ]
        else:
            lane.append(PartEnd(index=index, part=part))
        lanes.append(lane)
    told: list[LLMChunk] = []
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes if lane]))
        told.append(lane.pop(0))
    start = StreamStart(
        id=response.id,
        model=response.model,
        provider=response.provider,
        created=response.created,
        request_id=response.request_id,
    )
    end = StreamEnd(
        finish_reason=response.finish_reason,
        finish_raw=response.finish_raw,
        usage=response.usage,
        stop_sequence=response.stop_sequence,
        message_id=response.message.id,
        service_tier=response.service_tier,
        provider_data=response.provider_data,
    )
    return response, [start, *told, end]


@settings(max_examples=100)
@given(streams())
def test_chunks_cut_anywhere_fold_to_the_answer(stream: tuple[LLMResponse, list[LLMChunk]]) -> None:
    response, chunks = stream
    assert fold(chunks) == response


@settings(max_examples=100)
@given(responses)
def test_unfolding_is_undone_by_folding(response: LLMResponse) -> None:
    assert fold(unfold(response)) == response


def test_an_answer_unfolds_into_small_pieces() -> None:
    response = LLMResponse(message=ChatMessage.assistant("one two\nthree"))
    pieces = [chunk.text for chunk in unfold(response) if isinstance(chunk, TextDelta)]
    assert pieces == ["one", " two", "\nthree"]


def test_usage_is_replaced_count_by_count() -> None:
    response = fold(
        [
            UsageUpdate(usage=Usage(input_tokens=10, output_tokens=1, details={"a": 1})),
            UsageUpdate(usage=Usage(output_tokens=5)),
            StreamEnd(usage=Usage(output_tokens=7, reasoning_tokens=0, details={"b": 2})),
        ]
    )
    assert response.usage == Usage(
        input_tokens=10, output_tokens=7, reasoning_tokens=0, details={"a": 1, "b": 2}
    )


def test_a_call_without_arguments_has_an_empty_object() -> None:
    response = fold([ToolCallDelta(id="1", name="now"), PartEnd(), StreamEnd()])
    assert response.tool_calls == (ToolCall(id="1", name="now", arguments="{}"),)


def test_a_signature_is_kept_without_text() -> None:
    response = fold([ThinkingDelta(signature="sealed"), TextDelta(index=1, text="a"), StreamEnd()])
    assert response.message.parts == (ThinkingPart(signature="sealed"), TextPart(text="a"))


def test_kinds_that_share_an_index_become_parts_of_their_own() -> None:
    response = fold(
        [
            TextDelta(index=0, text="Let me "),
            ToolCallDelta(index=0, id="1", name="look", arguments="{}"),
            TextDelta(index=0, text="see."),
            StreamEnd(),
        ]
    )
    assert response.message.parts == (TextPart(text="Let me see."), ToolCall(id="1", name="look"))


def test_an_unfinished_stream_is_no_answer() -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        fold([StreamStart(provider="p"), TextDelta(text="Half")])
    assert caught.value.provider == "p"
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Half"


def test_a_builder_gives_what_there_is() -> None:
    builder = ResponseBuilder()
    assert builder.empty
    builder.add(TextDelta(text="Ha"))
    assert builder.response().finish_reason == "unknown"
    builder.add(TextDelta(text="lf"))
    partial = builder.response(unfinished="cancelled")
    assert (partial.text, partial.finish_reason, builder.finished) == ("Half", "cancelled", False)
    builder.add(StreamEnd())
    assert builder.response(unfinished="cancelled").finish_reason == "stop"
    with pytest.raises(TypeError, match="str is no chunk"):
        builder.add("text")  # type: ignore[arg-type]


async def _stream(closed: asyncio.Event) -> AsyncGenerator[LLMChunk, None]:
    try:
        for chunk in unfold(LLMResponse(message=ChatMessage.assistant("a b"))):
            yield chunk
    finally:
        closed.set()


async def test_a_stream_is_folded_as_it_comes() -> None:
    assert (await fold_stream(_stream(asyncio.Event()))).text == "a b"


async def test_closing_closes_at_once() -> None:
    closed = asyncio.Event()
    async with closing(_stream(closed)) as chunks:
        async for _ in chunks:
            break
        assert not closed.is_set()
    assert closed.is_set()


async def test_closing_leaves_alone_what_cannot_be_closed() -> None:
    class Plain:
        def __init__(self) -> None:
            self._left: Iterator[LLMChunk] = iter([TextDelta(text="a")])

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> LLMChunk:
            for chunk in self._left:
                return chunk
            raise StopAsyncIteration

    async with closing(Plain()) as chunks:
        assert [chunk async for chunk in chunks] == [TextDelta(text="a")]
