"""A model is asked once, while its answers are recorded; every other run answers from there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    MediaPart,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
    capabilities_of,
    closing,
    fold,
)
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import (
    CassetteError,
    InvalidRequestError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.testing.cassettes import CassettePlayer, CassetteRecorder, Cassettes
from llmgine.testing.fixtures import StartApp, quiet_config
from llmgine.testing.provider_suite import ProviderSuite

pytest_plugins = ["pytester"]

KEY = "sk-proj-abcdefghijklmnop"


def asking(text: str = "hi", **options: object) -> LLMRequest:
    return LLMRequest(messages=(ChatMessage.user(text),), **options)  # pyright: ignore[reportArgumentType]


def tool(**properties: object) -> ToolDefinition:
    schema: dict[str, object] = {"type": "object", "properties": properties}
    return {
        "type": "function",
        "function": {"name": "look", "description": "Look.", "parameters": schema},
    }


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def read(stream: AsyncIterator[LLMChunk]) -> list[LLMChunk]:
    return [chunk async for chunk in stream]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cassette.json"


def recorder(path: Path, *script: ScriptStep) -> CassetteRecorder:
    return CassetteRecorder(ScriptedProvider(script, name="theirs"), path)


async def record(path: Path, requests: Sequence[LLMRequest], *script: ScriptStep) -> CassettePlayer:
    """Record answers to requests, asked for as a whole, and return who knows them."""
    recording = recorder(path, *script)
    for request in requests:
        await asyncio.gather(recording.complete(request), return_exceptions=True)
    recording.save()
    return CassettePlayer(path)


class TestCassetteRecorder(ProviderSuite):
    @pytest.fixture(autouse=True)
    def use_path(self, path: Path) -> None:
        self.path = path

    def make_provider(self) -> LLMProvider:
        return CassetteRecorder(ScriptedProvider(), self.path)


# -- What is recorded is played


async def test_a_whole_answer_comes_back(path: Path) -> None:
    answer = LLMResponse(
        message=ChatMessage.assistant(
            ThinkingPart(text="Hm.", signature="abc"),
            "Grüße",
            ToolCall(id="t1", name="add", arguments='{"a": 1}'),
            MediaPart(kind="image", data=b"\x00\xff"),
        ),
        id="r1",
        model="m-1",
        provider="theirs",
        finish_reason="tool_calls",
        usage=Usage(input_tokens=3, output_tokens=0, details={"odd": 1}),
        provider_data={"kept": [1, None, {"deep": None}]},
    )
    player = await record(path, [asking()], answer)
    assert await player.complete(asking()) == answer
    assert player.name == "theirs"
    player.assert_finished()


async def test_a_stream_comes_back_chunk_by_chunk(path: Path) -> None:
    recording = recorder(path, "one two three")
    chunks = await read(recording.stream(asking()))
    recording.save()
    assert await read(CassettePlayer(path).stream(asking())) == chunks
    # Code that asks for it otherwise than it was recorded is served as well.
    assert await CassettePlayer(path).complete(asking()) == fold(chunks)
    player = await record(path, [asking()], "one two three")
    assert fold(await read(player.stream(asking()))).text == "one two three"


@pytest.mark.parametrize("whole", [True, False])
async def test_an_error_comes_back(path: Path, whole: bool) -> None:
    error = RateLimitError("slow down", provider="theirs", status=429, retry_after=2.5)
    recording = recorder(path, error)
    with pytest.raises(RateLimitError):
        await (recording.complete(asking()) if whole else read(recording.stream(asking())))
    recording.save()
    player = CassettePlayer(path)
    with pytest.raises(RateLimitError, match="slow down") as caught:
        await (player.complete(asking()) if whole else read(player.stream(asking())))
    found = caught.value
    assert (found.status, found.retry_after, found.provider) == (429, 2.5, "theirs")
    assert found.retryable
    assert found.request_id is None


async def test_what_an_error_says_of_itself_comes_back(path: Path) -> None:
    error = RateLimitError("never", provider_code="insufficient")
    error.retryable = False
    error.partial = LLMResponse(message=ChatMessage.assistant("Half"))
    player = await record(path, [asking()], error)
    with pytest.raises(RateLimitError) as caught:
        await player.complete(asking())
    assert not caught.value.retryable
    assert caught.value.provider_code == "insufficient"
    assert caught.value.partial == error.partial


async def test_a_broken_stream_comes_back_as_far_as_it_came(path: Path) -> None:
    recording = recorder(path, BrokenStream("one two three", after=2))
    with pytest.raises(StreamInterruptedError):
        await read(recording.stream(asking()))
    recording.save()
    player = CassettePlayer(path)
    assert "left" not in json.loads(text_of(path))["interactions"][0]
    stream = player.stream(asking())
    assert [type(await anext(stream)) for _ in range(3)] == [StreamStart, TextDelta, TextDelta]
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"


async def test_a_stream_that_was_left_ends_where_it_was_left(path: Path) -> None:
    async def first_word(provider: LLMProvider) -> str:
        async with closing(provider.stream(asking())) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextDelta):
                    return chunk.text
        raise AssertionError

    recording = recorder(path, "one two three")
    assert await first_word(recording) == "one"
    recording.save()
    assert await first_word(CassettePlayer(path)) == "one"
    with pytest.raises(CassetteError, match="the stream was left here when it was recorded"):
        await read(CassettePlayer(path).stream(asking()))
    with pytest.raises(CassetteError, match="the stream was left here"):
        await CassettePlayer(path).complete(asking())


async def test_a_call_that_was_cut_off_is_not_recorded(path: Path) -> None:
    def bug(request: LLMRequest) -> str:
        raise ZeroDivisionError

    player = await record(path, [asking("a"), asking("b")], bug, "B")
    assert (await player.complete(asking("b"))).text == "B"
    player.assert_finished()


async def test_what_a_provider_can_do_is_recorded(path: Path) -> None:
    class Plain(ScriptedProvider):
        @property
        def capabilities(self) -> ProviderCapabilities:
            return ProviderCapabilities(tools=False)

    recording = CassetteRecorder(Plain(), path)
    recording.save()
    assert capabilities_of(CassettePlayer(path)) == ProviderCapabilities(tools=False)


def test_a_capability_of_another_version_is_left_out(path: Path) -> None:
    CassetteRecorder(ScriptedProvider(), path).save()
    path.write_text(text_of(path).replace('"tools"', '"telepathy": true, "tools"'))
    assert capabilities_of(CassettePlayer(path)) == ProviderCapabilities()


# -- Which requests are the same


async def test_equal_requests_are_answered_in_order_and_others_in_any(path: Path) -> None:
    requests = [asking("a"), asking("b"), asking("a"), asking("b")]
    player = await record(path, requests, "a1", "b1", "a2", "b2")
    order = ("b", "b", "a", "a")
    answers = await asyncio.gather(*(player.complete(asking(text)) for text in order))
    assert [answer.text for answer in answers] == ["b1", "b2", "a1", "a2"]


async def test_calls_at_once_keep_the_order_of_their_beginnings(path: Path) -> None:
    gate = asyncio.Event()

    class Slow(ScriptedProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            answer = await super().complete(request)
            if answer.text == "first":
                await gate.wait()
            gate.set()
            return answer

    recording = CassetteRecorder(Slow(["first", "second"]), path)
    await asyncio.gather(recording.complete(asking()), recording.complete(asking()))
    recording.save()
    player = CassettePlayer(path)
    assert [(await player.complete(asking())).text for _ in range(2)] == ["first", "second"]


def conversation(call_id: str, **changes: object) -> LLMRequest:
    call = ToolCall(id=call_id, name="look", provider_data={"item": call_id})
    return LLMRequest(
        messages=(
            replace(ChatMessage.user("hi"), id=f"u-{call_id}"),
            ChatMessage(
                role="assistant",
                parts=(
                    ThinkingPart(text="Hm.", signature=call_id, id=call_id),
                    TextPart(text="So.", provider_data={"id": call_id}),
                    call,
                ),
                id=call_id,
                provider_data={"id": call_id},
            ),
            ChatMessage.tool(ToolResult(tool_call_id=call_id, name="look", content="sunny")),
        ),
        user_id=call_id,
        metadata={"trace": call_id},
        timeout=float(len(call_id)),
        **changes,  # pyright: ignore[reportArgumentType]
    )


async def test_ids_and_limits_make_no_other_request(path: Path) -> None:
    player = await record(path, [conversation("one")], "Fine.")
    assert (await player.complete(conversation("another"))).text == "Fine."


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"temperature": 0.5},
        {"tools": (tool(),)},
        {"tools": (tool(place={"type": "string"}),)},
        {"provider_options": {"extra": True}},
        {"stop": ("end",)},
        {"messages": ()},
        {"messages": (ChatMessage.user("hi", MediaPart(kind="image", data=b"1")),)},
        {"messages": (ChatMessage.user(TextPart(text="hi", provider_data={"cache": True})),)},
    ],
)
async def test_what_is_asked_for_makes_another(path: Path, changes: dict[str, object]) -> None:
    player = await record(path, [asking()], "Fine.")
    with pytest.raises(CassetteError, match="isn't recorded"):
        await player.complete(replace(asking(), **changes))  # pyright: ignore[reportArgumentType]


async def test_texts_that_change_are_scrubbed(path: Path, tmp_path: Path) -> None:
    def scrub(text: str) -> str:
        return text.replace(str(tmp_path), "<folder>")

    recording = CassetteRecorder(ScriptedProvider([f"It is {tmp_path}."]), path, scrub)
    await recording.complete(asking(f"Look into {tmp_path}"))
    recording.save()
    assert str(tmp_path) not in text_of(path)
    player = CassettePlayer(path, scrub)
    assert (await player.complete(asking(f"Look into {tmp_path}"))).text == "It is <folder>."


# -- A miss


async def test_a_miss_shows_the_nearest_request_and_what_differs(path: Path) -> None:
    requests = [asking("What is the weather in Rome?", model="m"), asking("Sing!", model="m")]
    player = await record(path, requests, "Sunny.", "La.")
    with pytest.raises(CassetteError) as caught:
        await player.complete(asking("What is the weather in Oslo?", model="m"))
    text = str(caught.value)
    assert text.startswith(f"{path}: the request isn't recorded; the nearest is\n--- recorded")
    assert '\n-     "text": "What is the weather in Rome?"\n' in text
    assert '\n+     "text": "What is the weather in Oslo?"\n' in text
    assert "Sing" not in text
    assert text.endswith("record it with LLMGINE_CASSETTES=record")


async def test_one_call_more_than_was_recorded_is_a_miss(path: Path) -> None:
    player = await record(path, [asking()], "Once.")
    await player.complete(asking())
    with pytest.raises(CassetteError, match=r"recorded 1 time\(s\), and was made once more"):
        await read(player.stream(asking()))


async def test_an_empty_cassette_knows_nothing(path: Path) -> None:
    player = await record(path, [])
    with pytest.raises(CassetteError, match="isn't recorded; nothing is; record it with"):
        await player.complete(asking())


async def test_a_miss_among_long_conversations_is_told_at_once(path: Path) -> None:
    def long(number: int) -> LLMRequest:
        said = (ChatMessage.user(f"line {line} of {number}") for line in range(300))
        return LLMRequest(messages=tuple(said))

    recorder = CassetteRecorder(ScriptedProvider(["Hello"] * 30), path)
    for number in range(30):
        await recorder.complete(long(number))
    recorder.save()
    asked = replace(long(7), messages=(*long(7).messages, ChatMessage.user("and more")))
    with pytest.raises(CassetteError) as caught:  # comparing line by line took minutes
        await CassettePlayer(path).complete(asked)
    assert "and more" in str(caught.value)
    assert "line 0 of" not in str(caught.value)  # as it would where another were the nearest


async def test_a_long_difference_is_cut(path: Path) -> None:
    player = await record(path, [asking()], "Fine.")
    many = LLMRequest(messages=tuple(ChatMessage.user(str(n)) for n in range(200)))
    with pytest.raises(CassetteError, match=r"\.\.\. and \d+ lines more") as caught:
        await player.complete(many)
    assert len(str(caught.value).splitlines()) < 70


async def test_calls_that_were_never_made_can_be_asserted(path: Path) -> None:
    player = await record(path, [asking("a"), asking("b"), asking("b")], "A", "B", "B")
    await player.complete(asking("b"))
    with pytest.raises(CassetteError, match=r"2 recorded call\(s\) were never made") as caught:
        player.assert_finished()
    assert '"text": "a"' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "expected a cassette, found: "),
        ("[]", "expected a cassette of version 1"),
        ('{"cassette": 2, "provider": "x"}', "expected a cassette of version 1"),
        (
            '{"cassette": 1, "provider": "x", "interactions": [{"response": {"type": "Nope"}}]}',
            "interaction 1: can't decode",
        ),
        (
            '{"cassette": 1, "provider": "x", "interactions": [{"chunks": [{"type": "Usage"}]}]}',
            "interaction 1: expected a chunk of an answer, found Usage",
        ),
        (
            '{"cassette": 1, "provider": "x", "interactions": [{"request": {}}]}',
            "interaction 1: expected a response, chunks or an error",
        ),
        ('{"cassette": 1, "provider": "x"}', "expected a list of interactions, found none"),
    ],
)
def test_a_cassette_that_can_t_be_read_is_named(path: Path, content: str, text: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(CassetteError) as caught:
        CassettePlayer(path)
    assert str(caught.value).startswith(f"{path}: {text}")


# -- Secrets, and what it looks like


async def test_no_secret_is_written(path: Path) -> None:
    secret = LLMResponse(
        message=ChatMessage.assistant(
            f"Use {KEY}.", ToolCall(id="1", name="login", arguments=f'{{"password": "{KEY[8:]}"}}')
        ),
        provider_data={"api_key": KEY[8:], "shown": True},
    )
    failed = RateLimitError(f"no credit for {KEY}")
    pieces = BrokenStream(f"The key is {KEY} then {KEY}.", after=99)
    recording = recorder(path, secret, failed, "one", pieces)
    schema = tool(password={"type": "string", "description": "Ask for it."})
    request = asking(
        f"My key is {KEY}", provider_options={"headers": {"x-api-key": KEY[8:]}}, tools=(schema,)
    )
    await recording.complete(request)
    await asyncio.gather(recording.complete(request), return_exceptions=True)
    await recording.complete(request)
    await asyncio.gather(read(recording.stream(request)), return_exceptions=True)
    recording.save()
    written = text_of(path)
    assert KEY not in written
    assert KEY[8:] not in written
    assert "Ask for it." in written
    player = CassettePlayer(path)
    assert (await player.complete(request)).text == "Use [redacted]."
    # The same question with another key is the same question.
    other = asking(
        "My key is sk-proj-zzzzzzzzzzzzzzzz",
        provider_options={"headers": {"x-api-key": "another"}},
        tools=(schema,),
    )
    with pytest.raises(RateLimitError, match=r"no credit for \[redacted\]"):
        await player.complete(other)


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"pin_token": 12345, "n": 1}', {"pin_token": "[redacted]", "n": 1}),
        ('{"secret": {"a": "b"}}', {"secret": "[redacted]"}),
        ('{"cookie": ["x", "y"]}', {"cookie": "[redacted]"}),
        ('{"a": "password=hunter22", "b": [1]}', {"a": "password=[redacted]", "b": [1]}),
        (f'{{"a": "{KEY}", "a": 1}}', {"a": 1}),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_arguments_stay_json_without_their_secrets(
    path: Path, arguments: str, written: object, *, whole: bool
) -> None:
    call = ToolCall(id="1", name="login", arguments=arguments)
    answer = ChatMessage(role="assistant", parts=(call,))
    recorder = CassetteRecorder(ScriptedProvider([answer]), path)
    await (recorder.complete(asking()) if whole else read(recorder.stream(asking())))
    recorder.save()
    player = CassettePlayer(path)
    response = await player.complete(asking())
    (played,) = response.message.tool_calls
    assert json.loads(played.arguments) == written
    assert KEY not in text_of(path)
    # What comes back in the next request is the same question, with the secret or without.
    assert played.arguments == json.dumps(written)


async def test_arguments_without_secrets_stay_as_they_came(path: Path) -> None:
    call = ToolCall(id="1", name="add", arguments='{"b" :1,  "a":2.50}')
    recorder = CassetteRecorder(
        ScriptedProvider([ChatMessage(role="assistant", parts=(call,))]), path
    )
    await recorder.complete(asking())
    recorder.save()
    response = await CassettePlayer(path).complete(asking())
    assert response.message.tool_calls[0].arguments == call.arguments


async def test_bytes_are_no_text_that_looks_like_a_secret(path: Path) -> None:
    data = json.dumps({"alg": "HS256", "typ": "JWT", "more": "x" * 40}).encode()
    answer = ChatMessage.assistant(MediaPart(kind="document", data=data))
    player = await record(path, [asking()], answer)
    assert (await player.complete(asking())).message == answer


async def test_a_secret_in_pieces_is_not_written(path: Path) -> None:
    class Pieces(ScriptedProvider):
        async def stream(self, request: LLMRequest):  # noqa: ANN202
            yield TextDelta(text="The key is sk-proj-")
            yield TextDelta(text="abcdefghijklmnop")
            yield TextDelta(text=", keep it.")

    recording = CassetteRecorder(Pieces(), path)
    await read(recording.stream(asking()))
    recording.save()
    assert "abcdefghijklmnop" not in text_of(path)
    chunks = await read(CassettePlayer(path).stream(asking()))
    said = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
    assert said == "The key is [redacted], keep it."


async def test_a_cassette_can_be_read_by_people(path: Path) -> None:
    recording = recorder(path, "Grüße")
    await read(recording.stream(asking("Grüß mich", model="m")))
    recording.save()
    assert text_of(path).startswith(
        """{
  "cassette": 1,
  "provider": "theirs",
  "capabilities": {
    "tools": true,
    "response_format": true,
    "media": true
  },
  "interactions": [
    {
      "request": {
        "type": "LLMRequest",
        "messages": [
          {
            "type": "ChatMessage",
            "role": "user",
            "parts": [
              {
                "type": "TextPart",
                "text": "Grüß mich"
              }
            ]
          }
        ],
        "model": "m"
      },
      "chunks": [
        {"type": "StreamStart", "id": "", "model": "m", "provider": "theirs"},
        {"type": "TextDelta", "index": 0, "text": "Grüße"},
"""
    )
    assert names_in(path.parent) == [path.name]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
MESSAGES = st.lists(
    st.builds(ChatMessage.user, TEXTS)
    | st.builds(ChatMessage.assistant, TEXTS)
    | st.builds(
        ChatMessage.assistant,
        st.builds(ToolCall, id=st.just("x"), name=TEXTS, arguments=TEXTS),
    ),
    max_size=4,
).map(tuple)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=MESSAGES, model=TEXTS, temperature=st.none() | st.floats(0, 2), words=TEXTS)
def test_whatever_is_recorded_is_played(
    path: Path,
    messages: tuple[ChatMessage, ...],
    model: str,
    temperature: float | None,
    words: str,
) -> None:
    request = LLMRequest(messages=messages, model=model, temperature=temperature)

    async def scenario() -> None:
        recording = recorder(path, words, words)
        whole, chunks = await recording.complete(request), await read(recording.stream(request))
        recording.save()
        player = CassettePlayer(path)
        assert await player.complete(request) == whole
        assert await read(player.stream(request)) == chunks
        player.assert_finished()

    asyncio.run(scenario())


# -- The fixture


TEST = """
import pytest
from llmgine.contracts import ChatMessage, LLMRequest
from llmgine.providers.scripted import ScriptedProvider

pytest_plugins = ["llmgine.testing.cassettes", "llmgine.testing.fixtures"]


def make():
    print("asked")
    return ScriptedProvider(["Hello!"], name="theirs")


@pytest.mark.parametrize("word", ["hi", "h i"])
async def test_hello(cassette, start_app, word):
    app = await start_app(provider=await cassette(make))
    answer = await app.provider.complete(LLMRequest(messages=(ChatMessage.user(word),)))
    assert (answer.text, answer.provider) == ("Hello!", "theirs")
    cassette.assert_finished()


async def test_settings(cassette):
    provider = await cassette()
    await provider.complete(LLMRequest(messages=(ChatMessage.user("one two three"),)))
"""
SETTINGS = """
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = auto
"""


def test_a_test_s_cassettes_are_recorded_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_it=TEST)
    pytester.makeini(SETTINGS)

    def run() -> pytest.RunResult:
        return pytester.runpytest_inprocess("-q", "-s", "--tb=line", "-p", "no:cacheprovider")

    missing = run()
    missing.assert_outcomes(failed=3)
    missing.stdout.fnmatch_lines(["*test_hello*.json: expected a cassette, found none; record it*"])
    monkeypatch.setenv("LLMGINE_CASSETTES", "record")
    recorded = run()
    recorded.assert_outcomes(passed=3)
    assert str(recorded.stdout).count("asked") == 2
    folder = pytester.path / "cassettes" / "test_it"
    names = names_in(folder)
    assert len(names) == 3
    assert names[2] == "test_settings.json"
    monkeypatch.delenv("LLMGINE_CASSETTES")
    played = run()
    played.assert_outcomes(passed=3)
    assert "asked" not in str(played.stdout)


async def test_a_test_may_use_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGINE_CASSETTES", "record")
    async with AsyncExitStack() as stack:
        cassettes = Cassettes(tmp_path, "test_mine", stack)
        await cassettes(lambda: ScriptedProvider([]))
        await cassettes(lambda: ScriptedProvider([]), name="other")
        with pytest.raises(CassetteError, match="give each cassette of a test its own `name`"):
            await cassettes(lambda: ScriptedProvider([]), name="other")
    assert names_in(tmp_path) == ["test_mine.json", "test_mine.other.json"]


async def test_a_recorded_provider_is_opened_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    class Opened(ScriptedProvider):
        async def __aenter__(self) -> LLMProvider:
            log.append("opened")
            return self

        async def __aexit__(self, *_: object) -> None:
            log.append("closed")

    monkeypatch.setenv("LLMGINE_CASSETTES", "record")
    async with AsyncExitStack() as stack:
        await Cassettes(tmp_path, "test_mine", stack)(Opened)
        assert log == ["opened"]
    assert log == ["opened", "closed"]


def test_a_mode_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGINE_CASSETTES", "yes")
    with pytest.raises(CassetteError, match="LLMGINE_CASSETTES: expected 'record' or 'replay'"):
        Cassettes(tmp_path, "test_mine", AsyncExitStack())


def test_the_variable_is_no_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGINE_CASSETTES", "record")
    assert ApplicationConfig(settings_file=None).provider.name == "scripted"


async def test_no_layer_hides_a_miss(path: Path, start_app: StartApp) -> None:
    player = await record(path, [])
    app = await start_app(quiet_config(), provider=player)
    with pytest.raises(CassetteError):
        await app.provider.complete(asking())


async def test_a_refusal_is_recorded(path: Path) -> None:
    player = await record(path, [asking()], InvalidRequestError("no"))
    with pytest.raises(InvalidRequestError):
        await player.complete(asking())
    assert json.loads(text_of(path))["interactions"][0]["error"] == {
        "code": "invalid_request",
        "message": "no",
        "retryable": False,
    }
