"""A conversation that changes its provider, and changes back: nobody is in the other's way."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llmgine.contracts import ChatMessage, LLMRequest, MediaPart, TextPart, ToolResult
from llmgine.providers.anthropic import AnthropicProvider
from llmgine.providers.openai import OpenAIProvider
from llmgine.testing.loopback import LoopbackServer, Reply

HELLO = ChatMessage.user("Hello")


def claude_says(*content: dict[str, Any], stop_reason: str = "end_turn") -> Reply:
    return Reply.json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-test",
            "content": list(content),
            "stop_reason": stop_reason,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )


def gpt_says(**message: Any) -> Reply:
    return Reply.json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-test",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None, **message},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


@dataclass
class Both:
    """Two providers, and one conversation that goes on with either."""

    claude: AnthropicProvider
    gpt: OpenAIProvider
    claude_hears: LoopbackServer
    gpt_hears: LoopbackServer
    history: list[ChatMessage] = field(default_factory=list[ChatMessage])

    async def ask_claude(self, *messages: ChatMessage) -> list[dict[str, Any]]:
        """Go on with Claude; return the conversation as its server hears it."""
        self.history += messages
        response = await self.claude.complete(LLMRequest(messages=tuple(self.history)))
        self.history.append(response.message)
        body: dict[str, Any] = self.claude_hears.heard[-1].json()
        return body["messages"]

    async def ask_gpt(self, *messages: ChatMessage) -> list[dict[str, Any]]:
        """Go on with GPT; return the conversation as its server hears it."""
        self.history += messages
        response = await self.gpt.complete(LLMRequest(messages=tuple(self.history)))
        self.history.append(response.message)
        body: dict[str, Any] = self.gpt_hears.heard[-1].json()
        return body["messages"]


@asynccontextmanager
async def both(claude: tuple[Reply, ...], gpt: tuple[Reply, ...]) -> AsyncGenerator[Both]:
    async with (
        LoopbackServer(*claude) as claude_hears,
        LoopbackServer(*gpt) as gpt_hears,
        AnthropicProvider(api_key="k", base_url=claude_hears.url) as claude_provider,
        OpenAIProvider(api_key="k", base_url=f"{gpt_hears.url}/v1") as gpt_provider,
    ):
        yield Both(claude_provider, gpt_provider, claude_hears, gpt_hears)


THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "Hm.", "signature": "sealed"}
HIDDEN: dict[str, Any] = {"type": "redacted_thinking", "data": "opaque"}
SEARCH: dict[str, Any] = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {},
}
CITED: dict[str, Any] = {
    "type": "text",
    "text": "Paris.",
    "citations": [{"type": "char_location", "cited_text": "x"}],
}
USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}


async def test_what_claude_began_gpt_goes_on_with_and_claude_finds_its_thoughts_again() -> None:
    image = MediaPart(kind="image", data=b"\x89PNG", media_type="image/png")
    result = ToolResult(
        tool_call_id="toolu_1", name="look", content=(TextPart(text="Dark."), image), is_error=True
    )
    claude = (
        claude_says(THOUGHT, HIDDEN, SEARCH, CITED, USE, stop_reason="tool_use"),
        claude_says({"type": "text", "text": "Good."}),
    )
    async with both(claude, (gpt_says(content="I see."),)) as exchange:
        await exchange.ask_claude(HELLO)
        heard = await exchange.ask_gpt(ChatMessage.tool(result))
        again = await exchange.ask_claude(ChatMessage.user("And?"))

    _, said, told, *_ = heard
    assert said["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    ]
    assert "Hm." not in str(heard)
    assert "Paris." in str(said["content"])
    assert (told["role"], told["tool_call_id"]) == ("tool", "toolu_1")
    assert "rror" in str(told["content"])

    _, said, told, answer, _ = again
    assert said["content"] == [THOUGHT, HIDDEN, SEARCH, CITED, USE]
    assert told["content"][0]["is_error"] is True
    assert answer == {"role": "assistant", "content": [{"type": "text", "text": "I see."}]}


async def test_what_gpt_began_claude_goes_on_with_and_gpt_finds_its_arguments_again() -> None:
    odd = "call|with.odd:characters"
    arguments = '{"city":\n "Paris",'
    gpt = (
        gpt_says(
            reasoning_content="Hm.",
            tool_calls=[
                {
                    "id": odd,
                    "type": "function",
                    "function": {"name": "look", "arguments": arguments},
                },
                {"id": "call_2", "type": "function", "function": {"name": "go", "arguments": ""}},
            ],
        ),
        gpt_says(refusal="Not that."),
        gpt_says(content="Good."),
    )
    results = (
        ToolResult(tool_call_id=odd, name="look", content="That is no JSON.", is_error=True),
        ToolResult(tool_call_id="call_2", name="go", content="Gone."),
    )
    claude = (claude_says({"type": "text", "text": "I see."}),)
    async with both(claude, gpt) as exchange:
        await exchange.ask_gpt(HELLO)
        heard = await exchange.ask_claude(ChatMessage.tool(*results))
        await exchange.ask_gpt(ChatMessage.user("And?"))
        after = await exchange.ask_claude(ChatMessage.user("Why?"))
        again = await exchange.ask_gpt(ChatMessage.user("Well?"))

    _, said, told = heard
    first, second = said["content"]
    assert (first["type"], first["name"], first["input"]) == ("tool_use", "look", {})
    assert (second["id"], second["input"]) == ("call_2", {})
    assert [block["tool_use_id"] for block in told["content"]] == [first["id"], "call_2"]
    assert first["id"] != odd
    assert after[-2] == {"role": "assistant", "content": [{"type": "text", "text": "Not that."}]}

    calls = again[1]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == [arguments, "{}"]
    assert [each["tool_call_id"] for each in again[2:4]] == [call["id"] for call in calls]
