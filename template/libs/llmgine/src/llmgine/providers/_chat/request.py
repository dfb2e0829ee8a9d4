"""Requests as the body of a chat completion. What can't be said there is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from llmgine.contracts import LLMRequest, ToolDefinition
from llmgine.contracts.chat import JsonObject
from llmgine.contracts.llm import FunctionDefinition, JsonSchemaFormat, NamedTool
from llmgine.errors import InvalidRequestError
from llmgine.providers._chat.dialect import Dialect
from llmgine.providers._chat.messages import MessageWriter

__all__ = ["RequestWriter"]

_log = logging.getLogger(__name__)

Refusal = Callable[[str], InvalidRequestError]


class RequestWriter:
    """Makes the bodies of one provider's calls.

    Args:
        dialect: what the server takes.
        model: the model where a request names none.
        refusal: makes the error for what can't be sent.
    """

    def __init__(self, dialect: Dialect, model: str, refusal: Refusal) -> None:
        self._dialect = dialect
        self._model = model
        self._refusal = refusal
        self._messages = MessageWriter(dialect, refusal)
        self._cut: set[str] = set()

    def body(self, request: LLMRequest, *, stream: bool = False) -> dict[str, object]:
        """Return the body of a call.

        Raises:
            InvalidRequestError: the request asks for what chat completions can't do.
        """
        for reason in _impossible(request):
            raise self._refusal(reason)
        body: dict[str, object] = {
            "model": request.model or self._model,
            "messages": self._messages.written(request.messages),
            **self._tools(request),
            **self._choices(request),
        }
        if stream:
            body["stream"] = True
            if self._dialect.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return {**self._extra(request.provider_options, body), **body}

    def _choices(self, request: LLMRequest) -> dict[str, object]:
        effort = request.reasoning.effort if request.reasoning else None
        chosen: dict[str, object] = {
            self._dialect.limit_field: request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "response_format": _format(request),
            "reasoning_effort": effort,
            self._dialect.user_field: request.user_id,
            "metadata": dict(request.metadata) or None,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def _tools(self, request: LLMRequest) -> dict[str, object]:
        if not request.tools:
            return {}
        written: dict[str, object] = {"tools": [self._tool(tool) for tool in request.tools]}
        choice = request.tool_choice
        if isinstance(choice, NamedTool):
            written["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        elif choice is not None:
            written["tool_choice"] = choice
        if request.parallel_tool_calls is not None:
            written["parallel_tool_calls"] = request.parallel_tool_calls
        return written

    def _tool(self, tool: ToolDefinition) -> ToolDefinition:
        limit, function = self._dialect.description_limit, tool["function"]
        if limit is None or len(function["description"]) <= limit:
            return tool
        name = function["name"]
        if name not in self._cut:
            self._cut.add(name)
            _log.warning(
                "%s takes tool descriptions of %d characters: that of %r was cut",
                self._dialect.provider,
                limit,
                name,
            )
        cut: FunctionDefinition = {**function, "description": function["description"][:limit]}
        return {"type": "function", "function": cut}

    def _extra(self, options: JsonObject, body: Mapping[str, object]) -> JsonObject:
        reserved = {*body, "stream", "stream_options"}
        if clash := sorted(reserved & options.keys()):
            raise self._refusal(f"provider_options: {clash[0]!r} belongs to the request itself")
        if options.get("n", 1) != 1:
            raise self._refusal("provider_options: `n` must be 1, since there is one answer")
        return options


def _impossible(request: LLMRequest) -> Iterator[str]:
    if not request.messages:
        yield "messages: there are none"
    longest = request.max_output_tokens
    if longest is not None and longest < 1:
        yield "max_output_tokens: must be at least 1"
    if request.top_k is not None:
        yield "top_k: not part of chat completions; a server that knows it has provider_options"
    if request.reasoning is not None and request.reasoning.budget_tokens is not None:
        yield "reasoning.budget_tokens: chat completions know `effort` alone"
    if request.reasoning is not None and request.reasoning.summary is not None:
        yield "reasoning.summary: chat completions know `effort` alone"
    yield from _impossible_choice(request)


def _impossible_choice(request: LLMRequest) -> Iterator[str]:
    choice = request.tool_choice
    names = [tool["function"]["name"] for tool in request.tools]
    if isinstance(choice, NamedTool) and choice.name not in names:
        yield f"tool_choice: there is no tool {choice.name!r} in the request"
    if choice == "required" and not names:
        yield "tool_choice: there are no tools in the request"


def _format(request: LLMRequest) -> dict[str, object] | None:
    wanted = request.response_format
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchemaFormat):
        schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"}
