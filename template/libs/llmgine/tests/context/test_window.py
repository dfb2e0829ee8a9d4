"""Windows start where a model can take up the thread."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.context.window import history_window, unmatched_results, window_start
from llmgine.contracts import ChatMessage, ToolCall, ToolResult


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
