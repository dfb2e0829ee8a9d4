"""A repaired history answers every call, once, right after the message that made it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.contracts import ChatMessage, ToolCall, ToolResult, repaired
from llmgine.contracts.history import INTERRUPTED


def call(number: str) -> ToolCall:
    return ToolCall(id=number, name="look")


def result(number: str, content: str = "seen") -> ToolResult:
    return ToolResult(tool_call_id=number, name="look", content=content)


ids = st.sampled_from(["1", "2", "3"])
histories = st.lists(
    st.one_of(
        st.just(ChatMessage.user("hi")),
        st.lists(ids.map(call), max_size=3).map(lambda calls: ChatMessage.assistant("", *calls)),
        st.lists(ids.map(result), min_size=1, max_size=3).map(
            lambda results: ChatMessage.tool(*results)
        ),
        ids.map(lambda number: ChatMessage.user("and", result(number))),
    ),
    max_size=8,
)


@settings(max_examples=100)
@given(histories)
def test_every_call_is_answered_and_nothing_else(history: list[ChatMessage]) -> None:
    fixed = repaired(history)
    at = 0
    while at < len(fixed):
        message = fixed[at]
        at += 1
        answers = list(message.tool_results)
        assert not answers
        while at < len(fixed) and fixed[at].role == "tool":
            answers += fixed[at].tool_results
            at += 1
        called = sorted(call.id for call in message.tool_calls)
        assert sorted(answer.tool_call_id for answer in answers) == called


@settings(max_examples=100)
@given(histories)
def test_repairing_twice_changes_nothing_more(history: list[ChatMessage]) -> None:
    fixed = repaired(history)
    assert repaired(fixed) == fixed


@settings(max_examples=100)
@given(histories)
def test_no_word_and_no_call_is_lost(history: list[ChatMessage]) -> None:
    def said(messages: list[ChatMessage]) -> list[object]:
        return [
            part for message in messages for part in (message.text, *message.tool_calls) if part
        ]

    assert said(repaired(history)) == said(history)


def test_a_sound_history_comes_back_as_it_is() -> None:
    history = [
        ChatMessage.system("Be brief."),
        ChatMessage.user("Look twice."),
        ChatMessage.assistant(call("1"), call("2")),
        ChatMessage.tool(result("2")),
        ChatMessage.tool(result("1")),
        ChatMessage.assistant("Seen."),
        ChatMessage.assistant(call("1")),
        ChatMessage.tool(result("1", "again")),
    ]
    fixed = repaired(history)
    assert all(new is old for new, old in zip(fixed, history, strict=True))


def test_an_interrupted_call_gets_an_error() -> None:
    (_, answer, last) = repaired([ChatMessage.assistant(call("1")), ChatMessage.user("Well?")])
    (stand_in,) = answer.tool_results
    assert (stand_in.tool_call_id, stand_in.name, stand_in.is_error) == ("1", "look", True)
    assert stand_in.error_code == INTERRUPTED
    assert last.text == "Well?"


def test_a_late_result_is_moved_up_and_a_second_one_left_out() -> None:
    history = [
        ChatMessage.assistant(call("1"), call("2")),
        ChatMessage.tool(result("2")),
        ChatMessage.user("Still waiting"),
        ChatMessage.tool(result("1", "late"), result("1", "twice"), result("2", "twice")),
    ]
    assert repaired(history) == [
        history[0],
        history[1],
        ChatMessage.tool(result("1", "late")),
        history[2],
    ]


def test_a_result_without_a_call_is_left_out_and_its_message_kept() -> None:
    history = [ChatMessage.tool(result("1")), ChatMessage.user("hi", result("2"))]
    assert repaired(history) == [ChatMessage.user("hi")]
    assert history[1].tool_results == (result("2"),)


def test_one_result_object_stored_twice_counts_once() -> None:
    same = result("1")
    history = [ChatMessage.assistant(call("1")), ChatMessage.tool(same), ChatMessage.tool(same)]
    assert repaired(history) == history[:2]
