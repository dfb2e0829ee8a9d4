"""Windows start where a model can take up the thread."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.context import estimated_tokens, summarised, token_window
from llmgine.context.window import history_window, unmatched_results, window_start
from llmgine.contracts import ChatMessage, MediaPart, OpaquePart, TextPart, ToolCall, ToolResult


def calls(*ids: str) -> ChatMessage:
    return ChatMessage.assistant(*(ToolCall(id=each, name="look") for each in ids))


def results(*ids: str, text: str = "") -> ChatMessage:
    said = [ToolResult(tool_call_id=each, name="look") for each in ids]
    return ChatMessage(
        role="tool", parts=(*ChatMessage.user(text).parts, *said) if text else tuple(said)
    )


ids = st.lists(st.sampled_from("abc"), min_size=1, max_size=2)
histories = st.lists(
    st.one_of(
        st.just(ChatMessage.user("hi")),
        ids.map(lambda each: calls(*each)),
        ids.map(lambda each: results(*each)),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(histories, st.integers(0, 13))
def test_no_window_holds_a_result_without_its_call(history: list[ChatMessage], last: int) -> None:
    window = history_window(history, last)
    assert not unmatched_results(window)


@settings(max_examples=300, deadline=None)
@given(histories, st.integers(0, 13))
def test_a_sound_history_is_cut_but_not_changed(history: list[ChatMessage], last: int) -> None:
    if unmatched_results(history):
        history = [message for message in history if not message.tool_results]
    window = history_window(history, last)
    assert len(window) >= min(last, len(history))
    assert window == history[len(history) - len(window) :]


def test_a_window_grows_to_the_call_and_no_further() -> None:
    history = [
        ChatMessage.user("1"),
        calls("a", "b"),
        results("a"),
        results("b"),
        ChatMessage.assistant("2"),
    ]
    assert [window_start(history, last) for last in range(7)] == [5, 4, 1, 1, 1, 0, 0]


def test_ids_that_come_again_belong_to_the_latest_call() -> None:
    history = [calls("a"), results("a"), ChatMessage.user("x"), calls("a"), results("a")]
    assert window_start(history, 1) == 3


def test_a_call_further_back_takes_along_what_lies_between() -> None:
    history = [calls("a"), calls("b"), results("a"), results("b")]
    assert window_start(history, 1) == 0


def test_results_that_nobody_called_for_are_left_out_of_a_window_only() -> None:
    history = [results("x"), results("x", text="and words"), calls("x"), results("x")]
    assert history_window(history, None) == history
    cleaned = history_window(history, 9)
    assert [message.text for message in cleaned] == ["and words", "", ""]
    assert cleaned[1:] == history[2:]


# -- By tokens

with_instructions = st.lists(
    st.one_of(
        st.just(ChatMessage.system("be kind")),
        st.just(ChatMessage.user("hi")),
        ids.map(lambda each: calls(*each)),
        ids.map(lambda each: results(*each)),
    ),
    max_size=12,
)


def cost(message: ChatMessage) -> int:
    return 1 + len(message.parts)


@settings(max_examples=200, deadline=None)
@given(with_instructions, st.integers(0, 30))
def test_a_token_window_is_the_longest_sound_one_within_the_budget(
    history: list[ChatMessage], budget: int
) -> None:
    sound = history_window(history, len(history))
    fitting: list[list[ChatMessage]] = []
    for start in range(len(sound) + 1):
        older = [message for message in sound[:start] if message.role == "system"]
        window = [*older, *sound[start:]]
        if not unmatched_results(window) and sum(map(cost, window)) <= budget:
            fitting.append(window)
    instructions = [message for message in sound if message.role == "system"]
    longest = max(fitting, key=len, default=instructions)
    assert token_window(history, budget, count=cost) == longest


def test_a_token_window_keeps_instructions_and_takes_the_newest() -> None:
    history = [
        ChatMessage.system("be kind"),
        ChatMessage.user("1"),
        calls("a"),
        results("a"),
        ChatMessage.assistant("2"),
    ]
    sizes = [len(token_window(history, budget, count=lambda _: 1)) for budget in range(7)]
    assert sizes == [1, 1, 2, 2, 4, 5, 5]
    assert token_window(history, 3, count=lambda _: 1) == [history[0], history[-1]]
    assert token_window(history, 1_000) == history


def test_tokens_are_estimated_from_all_that_is_sent() -> None:
    assert estimated_tokens(ChatMessage.user()) == 4
    assert estimated_tokens(ChatMessage.user("abcd")) == 5
    assert estimated_tokens(ChatMessage.user("abcde")) == 6
    assert estimated_tokens(ChatMessage.user("\ud800äöü")) == 6
    assert estimated_tokens(calls("a")) == 4 + 2
    picture = MediaPart(kind="image", url="https://example.org/x.png")
    assert estimated_tokens(ChatMessage.user("abcd", picture)) == 1_505
    seen = ToolResult(tool_call_id="a", name="look", content=(TextPart(text="abcd"), picture))
    assert estimated_tokens(ChatMessage.tool(seen)) == 1_505
    odd = OpaquePart(provider="p", data={"a": "x" * 400})
    assert estimated_tokens(ChatMessage.assistant(odd)) > 100


# -- By summary


async def in_words(messages: Sequence[ChatMessage]) -> str:
    return "+".join(message.text or message.role for message in messages)


async def test_a_summary_names_what_it_stands_for() -> None:
    history = [
        ChatMessage.system("be kind"),
        *(ChatMessage.user(str(number)) for number in range(2, 7)),
    ]
    first = await summarised(history, last=2, summarise=in_words)
    assert [message.text for message in first] == ["be kind", "2+3+4", "5", "6"]
    assert first[1].role == "user"
    assert first[1].provider_data == {"llmgine.summary": {"first": 2, "last": 4}}
    assert [*first[:1], *first[2:]] == [history[0], *history[4:]]

    later = [*first, ChatMessage.user("7"), ChatMessage.user("8")]
    second = await summarised(later, last=1, summarise=in_words)
    assert [message.text for message in second] == ["be kind", "2+3+4+5+6+7", "8"]
    assert second[1].provider_data == {"llmgine.summary": {"first": 2, "last": 7}}


async def test_a_summary_never_parts_results_from_their_calls() -> None:
    history = [ChatMessage.user("1"), calls("a"), results("a"), ChatMessage.assistant("2")]
    found = await summarised(history, last=2, summarise=in_words)
    assert found[0].text == "1"
    assert found[1:] == history[1:]


async def test_what_needs_no_summary_is_left_as_it_is() -> None:
    history = [ChatMessage.system("be kind"), ChatMessage.user("1")]

    async def never(_: Sequence[ChatMessage]) -> str:
        raise AssertionError

    for last in (1, 2, 9):
        assert await summarised(history, last=last, summarise=never) == history
    with pytest.raises(ValueError, match="0 or more, not -1"):
        await summarised(history, last=-1, summarise=never)
