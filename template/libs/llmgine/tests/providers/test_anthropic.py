"""What comes from Anthropic: whole answers and streams, failures, and leaving early.

Anthropic's own SDK speaks to a real server here, which says what the tests tell it to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ChatMessage,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    OpaquePart,
    PartEnd,
    RefusalPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingPart,
    ToolCall,
    Usage,
    closing,
)
from llmgine.contracts.stream import fold_stream
from llmgine.errors import (
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    ConflictError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.settings import ProviderSettings
from llmgine.testing.loopback import Heard, LoopbackServer, Reply
from llmgine.testing.provider_suite import ProviderSuite

pytest.importorskip("anthropic", reason="the extra `anthropic` isn't installed")

from llmgine.providers.anthropic import AnthropicProvider, build

Json = dict[str, Any]
Ending = Literal["end", "drop", "hold"]

REQUEST = LLMRequest(messages=(ChatMessage.user("Hello"),))
VARIABLES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CONFIG_DIR",
    "ANTHROPIC_PROFILE",
)


@pytest.fixture(autouse=True)
def _nothing_of_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


def text(words: str, **more: object) -> Json:
    return {"type": "text", "text": words, **more}


def answer(*content: Json, **more: object) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **more,
    }


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def in_two(words: str) -> list[str]:
    return [words[: len(words) // 2], words[len(words) // 2 :]]


Cut = Callable[[str], list[str]]


def deltas(block: Json, cut: Cut) -> Iterator[Json]:
    """Yield what Anthropic streams of a block after its start."""
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in cut(block["text"]))
        for each in block.get("citations") or ():
            yield {"type": "citations_delta", "citation": each}
    elif block["type"] == "thinking":
        yield from (
            {"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])
        )
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block.get("input"):
        pieces = cut(json.dumps(block["input"], ensure_ascii=False))
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


BARE: dict[str, Json] = {
    "text": {"text": "", "citations": None},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
}


def events(message: Json, cut: Cut = in_two) -> list[bytes]:
    """Return the stream that Anthropic makes of an answer."""
    usage: Json = message["usage"]
    start: Json = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start.pop("stop_details", None)
    start["usage"] = {**usage, "output_tokens": 1}
    sent = [event("message_start", message=start), event("ping")]
    for index, block in enumerate(message["content"]):
        bare = {**block, **BARE.get(block["type"], {})}
        sent.append(event("content_block_start", index=index, content_block=bare))
        sent += [
            event("content_block_delta", index=index, delta=delta) for delta in deltas(block, cut)
        ]
        sent.append(event("content_block_stop", index=index))
    names = ("stop_reason", "stop_sequence", "stop_details")
    end = {name: message.get(name) for name in names}
    sent.append(event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]}))
    return [*sent, event("message_stop")]


def either(heard: Heard, message: Json, cut: Cut = in_two) -> Reply:
    """Answer whole or in a stream, as the request says."""
    if heard.json().get("stream"):
        return Reply.events(events(message, cut))
    return Reply.json(message)


class TestAnthropicProvider(ProviderSuite):
    @pytest.fixture(autouse=True)
    async def _server(self) -> AsyncGenerator[None]:
        message = answer(text("Hello, my friend."))
        async with LoopbackServer(lambda heard: either(heard, message)) as self.server:
            yield

    def make_provider(self) -> LLMProvider:
        return AnthropicProvider(api_key="sk-secret", base_url=self.server.url)


class Desk:
    """A provider and its server for many short tests: making a client takes long."""

    def __init__(self, runner: asyncio.Runner, provider: AnthropicProvider) -> None:
        self._runner = runner
        self._provider = provider
        self.reply: Callable[[Heard], Reply] = lambda heard: Reply.json({})

    def whole(self, reply: Reply, request: LLMRequest = REQUEST) -> LLMResponse:
        self.reply = lambda heard: reply
        return self._runner.run(self._provider.complete(request))

    def streamed(self, reply: Reply, request: LLMRequest = REQUEST) -> LLMResponse:
        self.reply = lambda heard: reply
        return self._runner.run(fold_stream(self._provider.stream(request)))

    def both(self, message: Json, cut: Cut = in_two) -> LLMResponse:
        """Return an answer, after a check that its stream makes up the same."""
        whole = self.whole(Reply.json(message))
        assert self.streamed(Reply.events(events(message, cut))) == whole
        return whole

    def error(self, reply: Reply, *, whole: bool) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.whole(reply) if whole else self.streamed(reply)
        assert caught.value.provider == "anthropic"
        assert "sk-secret" not in str(caught.value)
        return caught.value

    def broken(self, reply: Reply) -> tuple[StreamInterruptedError, LLMResponse]:
        """Return the error of a stream that breaks off, and what had arrived."""
        error = self.error(reply, whole=False)
        assert isinstance(error, StreamInterruptedError)
        assert isinstance(error.partial, LLMResponse)
        assert error.partial.finish_reason == "error"
        return error, error.partial


@pytest.fixture(scope="module")
def desk() -> Generator[Desk]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        desks: list[Desk] = []

        def reply(heard: Heard) -> Reply:
            return desks[0].reply(heard)

        server = LoopbackServer(reply)
        runner.run(stack.enter_async_context(server))
        provider = AnthropicProvider(api_key="sk-secret", base_url=server.url)
        runner.run(stack.enter_async_context(provider))
        desks.append(Desk(runner, provider))
        yield desks[0]
        runner.run(stack.aclose())


def test_a_plain_answer(desk: Desk) -> None:
    response = desk.whole(Reply.json(answer(text("Hello.")), request_id="req_1"))
    assert response == LLMResponse(
        message=ChatMessage.assistant("Hello."),
        id="msg_1",
        model="claude-test",
        provider="anthropic",
        finish_reason="stop",
        finish_raw="end_turn",
        usage=Usage(input_tokens=10, output_tokens=5),
        request_id="req_1",
    )


def test_every_kind_of_block_keeps_its_place(desk: Desk) -> None:
    search: Json = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search"}
    found: Json = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    cited: Json = {"type": "char_location", "cited_text": "x", "document_index": 0}
    newer: Json = {"type": "hologram", "beam": {"colour": "green"}}
    response = desk.both(
        answer(
            {"type": "thinking", "thinking": "Hm.", "signature": "sealed"},
            {"type": "thinking", "thinking": "", "signature": "sealed too"},
            {"type": "redacted_thinking", "data": "opaque"},
            {**search, "input": {"query": "é"}},
            found,
            text("It says", citations=[cited]),
            text(""),
            newer,
            {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"x": [1, 2]}},
            {"type": "tool_use", "id": "toolu_2", "name": "stop", "input": {}},
            {
                "type": "tool_use",
                "id": "toolu_3",
                "name": "add",
                "input": {"x": 1},
                "caller": {"type": "direct"},
            },
            stop_reason="tool_use",
        )
    )
    assert response.message.parts == (
        ThinkingPart(text="Hm.", signature="sealed", provider="anthropic"),
        ThinkingPart(text="", signature="sealed too", provider="anthropic"),
        ThinkingPart(redacted="opaque", provider="anthropic"),
        OpaquePart(provider="anthropic", data={**search, "input": {"query": "é"}}),
        OpaquePart(provider="anthropic", data=found),
        TextPart(text="It says", provider_data={"citations": [cited]}),
        TextPart(text=""),
        OpaquePart(provider="anthropic", data=newer),
        ToolCall(id="toolu_1", name="add", arguments='{"x": [1, 2]}'),
        ToolCall(id="toolu_2", name="stop", arguments="{}"),
        ToolCall(
            id="toolu_3",
            name="add",
            arguments='{"x": 1}',
            provider_data={"caller": {"type": "direct"}},
        ),
    )
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("enlightenment", "unknown"),
    ],
)
def test_finish_reasons(desk: Desk, raw: str, reason: str) -> None:
    response = desk.both(answer(text("So"), stop_reason=raw, stop_sequence="END"))
    assert (response.finish_reason, response.finish_raw) == (reason, raw)
    assert response.stop_sequence == "END"


def test_a_refusal_is_explained(desk: Desk) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
    response = desk.both(answer(text("We"), stop_reason="refusal", stop_details=details))
    assert response.message.parts == (TextPart(text="We"), RefusalPart(text="Not that."))
    assert response.provider_data == {"stop_details": details}


def test_usage_counts_what_the_cache_took_in_and_gave(desk: Desk) -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
        "cache_creation": {"ephemeral_5m_input_tokens": 200},
        "server_tool_use": {"web_search_requests": 2},
        "service_tier": "priority",
        "inference_geo": "eu",
    }
    response = desk.both(answer(text("So"), usage=usage, container={"id": "c"}))
    assert response.usage == Usage(
        input_tokens=3210,
        output_tokens=50,
        cache_read_tokens=3000,
        cache_write_tokens=200,
        reasoning_tokens=40,
        details={
            "cache_creation.ephemeral_5m_input_tokens": 200,
            "server_tool_use.web_search_requests": 2,
        },
    )
    assert response.service_tier == "priority"
    assert response.provider_data == {"container": {"id": "c"}, "usage": {"inference_geo": "eu"}}


def test_what_is_not_reported_is_not_zero(desk: Desk) -> None:
    response = desk.whole(Reply.json(answer(text("So"), usage={"output_tokens": 0})))
    assert response.usage == Usage(output_tokens=0)


def test_arguments_are_kept_as_they_are_streamed(desk: Desk) -> None:
    call: Json = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
    arguments = '{"x":1,\n "x": "\\u00e9"'
    sent = events(answer(call, stop_reason="max_tokens"))
    pieces = [
        event(
            "content_block_delta",
            index=0,
            delta={"type": "input_json_delta", "partial_json": piece},
        )
        for piece in ("", *arguments)
    ]
    response = desk.streamed(Reply.events([*sent[:3], *pieces, *sent[3:]]))
    assert response.tool_calls == (ToolCall(id="toolu_1", name="add", arguments=arguments),)


def test_deltas_and_events_of_a_newer_kind_are_kept_or_passed_over(desk: Desk) -> None:
    sent = [
        event("message_start", message=answer()),
        event("weather", forecast="rain"),
        event("content_block_start", index=0, content_block={"type": "memo", "content": "a"}),
        event("content_block_delta", index=0, delta={"type": "memo_delta", "content": "b"}),
        event("content_block_delta", index=0, delta={"type": "memo_delta", "lines": [1]}),
        event("content_block_delta", index=0, delta={"type": "memo_delta", "lines": [2]}),
        event("content_block_stop", index=0),
        event("message_stop"),
    ]
    response = desk.streamed(Reply.events(sent))
    memo: Json = {"type": "memo", "content": "ab", "lines": [1, 2]}
    assert response.message.parts == (OpaquePart(provider="anthropic", data=memo),)


WORDS = st.text(st.characters(exclude_categories=["Cs"]))
OBJECTS = st.dictionaries(WORDS, st.none() | st.integers() | WORDS | st.lists(WORDS), max_size=3)
BLOCKS = st.one_of(
    st.builds(text, WORDS),
    st.fixed_dictionaries(
        {"type": st.just("thinking"), "thinking": WORDS, "signature": WORDS.filter(bool)}
    ),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": WORDS, "name": WORDS, "input": OBJECTS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("server_tool_use"), "id": WORDS, "name": WORDS, "input": OBJECTS}
    ),
)


@hypothesis.settings(max_examples=20)
@given(blocks=st.lists(BLOCKS, max_size=4), size=st.integers(1, 7))
def test_a_stream_cut_anywhere_makes_up_the_whole_answer(
    desk: Desk, blocks: list[Json], size: int
) -> None:
    desk.both(
        answer(*blocks),
        lambda words: [words[at : at + size] for at in range(0, len(words), size)],
    )


def failure(kind: str, message: str = "no") -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, failure("invalid_request_error"), InvalidRequestError, False),
        (
            400,
            failure("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            ContextLengthError,
            False,
        ),
        (
            400,
            failure("invalid_request_error", "Your credit balance is too low"),
            QuotaExceededError,
            False,
        ),
        (401, failure("authentication_error", "bad key sk-secret"), AuthenticationError, False),
        (402, failure("billing_error"), QuotaExceededError, False),
        (403, failure("permission_error"), PermissionDeniedError, False),
        (404, failure("not_found_error", "model: claude-0"), NotFoundError, False),
        (409, failure("conflict_error"), ConflictError, True),
        (413, failure("request_too_large"), InvalidRequestError, False),
        (429, failure("rate_limit_error"), RateLimitError, True),
        (500, failure("api_error"), ProviderServerError, True),
        (502, "<html>bad gateway</html>", ProviderServerError, True),
        (504, failure("timeout_error"), ProviderTimeoutError, True),
        (529, failure("overloaded_error"), OverloadedError, True),
    ],
)
def test_failures(
    desk: Desk, status: int, body: object, kind: type[ProviderError], retryable: bool
) -> None:
    reply = Reply.json(body, status=status, request_id="req_1", retry_after="7")
    for whole in (True, False):
        error = desk.error(reply, whole=whole)
        assert type(error) is kind
        assert (error.status, error.retryable, error.retry_after) == (status, retryable, 7.0)
        assert error.request_id == "req_1"


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"type": "completion"}),
        Reply.json([1]),
        Reply.json(answer() | {"content": "Hello."}),
        Reply(headers={"content-type": "text/html"}, pieces=(b"<html>",)),
        Reply(headers={"content-type": "application/json"}, pieces=(b'{"type": "mess',)),
    ],
)
def test_an_answer_that_is_none(desk: Desk, reply: Reply) -> None:
    error = desk.error(reply, whole=True)
    assert isinstance(error, BadResponseError)


def test_a_connection_that_is_lost_before_an_answer(desk: Desk) -> None:
    error = desk.error(Reply(pieces=(b"{",), ending="drop"), whole=True)
    assert isinstance(error, ProviderConnectionError | BadResponseError)
    assert error.retryable


async def test_a_server_that_is_not_there() -> None:
    async with LoopbackServer(Reply()) as server:
        url = server.url
    async with AnthropicProvider(api_key="k", base_url=url) as provider:
        with pytest.raises(ProviderConnectionError):
            await provider.complete(REQUEST)
        with pytest.raises(ProviderConnectionError):
            await fold_stream(provider.stream(REQUEST))


HELLO = events(answer(text("Hello, you.")))
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "busy"})
BROKEN = [
    pytest.param((), "end", id="ends early"),
    pytest.param((b"event: content_block_delta\ndata: {oops\n\n",), "end", id="corrupt"),
    pytest.param((b"event: content_block_delta\ndata: \xff\xfe\n\n",), "end", id="no text"),
    pytest.param((event("content_block_delta", index=7, delta={}),), "end", id="out of place"),
    pytest.param((), "drop", id="dropped"),
    pytest.param((OVERLOADED,), "end", id="error event"),
]


@pytest.mark.parametrize(("last", "ending"), BROKEN)
def test_a_stream_that_breaks_off_hands_over_what_had_arrived(
    desk: Desk, last: tuple[bytes, ...], ending: Ending
) -> None:
    error, partial = desk.broken(Reply.events([*HELLO[:4], *last], ending=ending))
    assert partial.text == "Hello"
    assert partial.usage.input_tokens == 10
    assert not error.retryable


@pytest.mark.parametrize(("last", "ending"), BROKEN)
def test_a_stream_that_breaks_off_at_once_may_be_tried_again(
    desk: Desk, last: tuple[bytes, ...], ending: Ending
) -> None:
    error, partial = desk.broken(Reply.events([*HELLO[:1], *last], ending=ending))
    assert partial.text == ""
    assert error.retryable


def test_an_error_event_keeps_its_code(desk: Desk) -> None:
    error, _ = desk.broken(Reply.events([*HELLO[:4], OVERLOADED]))
    assert error.provider_code == "overloaded_error"
    assert "busy" in str(error)


def test_the_timeout_is_for_the_whole_call(desk: Desk) -> None:
    with pytest.raises(ProviderTimeoutError, match=r"0\.1 s"):
        desk.whole(Reply(ending="hold"), LLMRequest(messages=REQUEST.messages, timeout=0.1))
    request = LLMRequest(messages=REQUEST.messages, timeout=2.0)
    with pytest.raises(ProviderTimeoutError, match="2 s") as caught:
        desk.streamed(Reply.events(HELLO[:4], ending="hold"), request)
    assert caught.value.partial is not None


async def test_calls_and_streams_one_after_the_other_share_a_connection() -> None:
    message = answer(text("Hello."))
    async with (
        LoopbackServer(lambda heard: either(heard, message)) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
    ):
        for _ in range(3):
            await fold_stream(provider.stream(REQUEST))
            await provider.complete(REQUEST)
    assert server.connections == 1


async def test_a_server_that_says_no_more_after_the_end_is_not_waited_for() -> None:
    async with (
        LoopbackServer(Reply.events(HELLO, ending="hold")) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
        asyncio.timeout(30),
    ):
        assert (await fold_stream(provider.stream(REQUEST))).text == "Hello, you."
        await server.left.wait()


async def test_a_server_that_falls_silent_is_given_up_on() -> None:
    async with (
        LoopbackServer(Reply.events(HELLO[:4], ending="hold")) as server,
        AnthropicProvider(api_key="k", base_url=server.url, read_timeout=2.0) as provider,
    ):
        with pytest.raises(StreamInterruptedError) as caught:
            await fold_stream(provider.stream(REQUEST))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


async def read_a_little(provider: AnthropicProvider) -> None:
    async with closing(provider.stream(REQUEST)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                return


async def test_leaving_a_stream_early_closes_its_connection() -> None:
    reply = Reply.events(HELLO[:4], ending="hold")
    async with (
        LoopbackServer(reply) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
    ):
        await read_a_little(provider)
        async with asyncio.timeout(30):
            await server.left.wait()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_cancelled_call_closes_its_connection(whole: bool) -> None:
    heard = asyncio.Event()

    def silent(_: Heard) -> Reply:
        heard.set()
        return Reply(ending="hold")

    async with (
        LoopbackServer(silent) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
    ):
        calling = provider.complete(REQUEST) if whole else fold_stream(provider.stream(REQUEST))
        call = asyncio.create_task(calling)
        async with asyncio.timeout(30):
            await heard.wait()
            call.cancel()
            await server.left.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_nothing_is_tried_twice() -> None:
    async with (
        LoopbackServer(Reply.json(failure("overloaded_error"), status=529)) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
    ):
        with pytest.raises(OverloadedError):
            await provider.complete(REQUEST)
    assert len(server.heard) == 1


async def test_chunks_come_as_the_server_sends_them() -> None:
    async with (
        LoopbackServer(Reply.events(events(answer(text("Hello, you."))))) as server,
        AnthropicProvider(api_key="k", base_url=server.url) as provider,
    ):
        start, *inner, end = [chunk async for chunk in provider.stream(REQUEST)]
    assert start == StreamStart(id="msg_1", model="claude-test", provider="anthropic")
    assert [chunk.text for chunk in inner if isinstance(chunk, TextDelta)] == ["Hello", ", you."]
    assert PartEnd(index=0) in inner
    assert isinstance(end, StreamEnd)


def settings(**options: str) -> ProviderSettings:
    return ProviderSettings(name="anthropic", options=options)


def test_a_missing_key_is_told_in_a_line_that_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="set ANTHROPIC_API_KEY") as caught:
        build(settings())
    assert "\n" not in str(caught.value)


def test_a_search_for_other_credentials_that_fails_is_told_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match=r"set ANTHROPIC_API_KEY.*'nobody'"):
        build(settings())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_token": "1"}, "max_token: no such option.*`max_tokens`"),
        ({"max_tokens": "0"}, "expected a number of tokens, found '0'"),
        ({"read_timeout": "soon"}, "expected seconds, found 'soon'"),
        ({"api_version": "latest"}, "expected a date"),
        ({"base_url": "example.com"}, "base_url"),
        ({"api_key": "sk secret"}, "expected a key"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        build(settings(**{"api_key": "k", **options}))
    assert "secret" not in str(caught.value)


async def test_settings_choose_the_provider_and_dotenv_may_hold_its_key(tmp_path: Path) -> None:
    message = answer(text("Hello."))
    async with LoopbackServer(lambda heard: either(heard, message)) as server:
        file = tmp_path / "settings.toml"
        file.write_text(
            '[provider]\nname = "anthropic"\nmodel = "claude-mine"\n'
            f'[provider.options]\nbase_url = "{server.url}"\nmax_tokens = "77"\n'
        )
        (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=sk-from-dotenv\n")
        config = ApplicationConfig(
            settings_file=file, console={"enabled": False}, file={"enabled": False}
        )
        async with ApplicationBootstrap(config, bus=MessageBus.isolated()) as app:
            assert (await app.provider.complete(REQUEST)).text == "Hello."
    (heard,) = server.heard
    assert heard.headers["authorization"] == "Bearer sk-from-dotenv"
    assert (heard.json()["model"], heard.json()["max_tokens"]) == ("claude-mine", 77)


async def test_a_server_of_ones_own_needs_no_key() -> None:
    busy = Reply.json(failure("overloaded_error", "none is free"), status=529)
    async with (
        LoopbackServer(Reply.json(answer(text("Hello."))), busy) as server,
        AnthropicProvider(base_url=server.url) as provider,
    ):
        assert (await provider.complete(REQUEST)).text == "Hello."
        with pytest.raises(OverloadedError, match="none is free"):
            await provider.complete(REQUEST)


async def test_credentials_of_the_sdks_own_that_fail_are_no_bad_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTHROPIC_IDENTITY_TOKEN_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("ANTHROPIC_FEDERATION_RULE_ID", "rule")
    monkeypatch.setenv("ANTHROPIC_ORGANIZATION_ID", "organization")
    async with (
        LoopbackServer(Reply.json({})) as server,
        AnthropicProvider(base_url=server.url) as provider,
    ):
        with pytest.raises(AuthenticationError, match="missing"):
            await provider.complete(REQUEST)


async def test_a_token_stands_in_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token")
    async with LoopbackServer(Reply.json(answer(text("Hello.")))) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        provider = build(settings())
        assert isinstance(provider, AnthropicProvider)
        async with provider:
            await provider.complete(REQUEST)
    assert server.heard[0].headers["authorization"] == "Bearer token"
