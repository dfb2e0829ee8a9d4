"""Requests in OpenAI's shape as ours; whatever can't be done as asked is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

from llmgine.contracts import LLMRequest, ToolDefinition
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Reasoning,
    ResponseFormat,
    ToolChoice,
)
from llmgine.contracts.protocols import ProviderCapabilities

from api.completions.messages import conversation
from api.completions.schema import (
    CompletionRequest,
    FunctionTool,
    JsonSchemaForm,
    NamedChoice,
    TextForm,
)
from api.problems import Problem

__all__ = ["request_of", "runs_tools"]


def request_of(asked: CompletionRequest, provider: str, able: ProviderCapabilities) -> LLMRequest:
    """Return what a model is asked.

    Args:
        asked: what the caller asks.
        provider: the provider's name.
        able: what it can do.

    Raises:
        Problem: something of it can't be meant, or the provider can't do it.
    """
    _check(asked, able)
    efforts = asked.reasoning_effort
    return LLMRequest(
        messages=tuple(conversation(asked.messages, provider, media=able.media)),
        tools=_tools(asked.tools or ()),
        tool_choice=_choice(asked),
        parallel_tool_calls=asked.parallel_tool_calls,
        max_output_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=_stops(asked),
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        response_format=_format(asked),
        reasoning=None if efforts is None else Reasoning(effort=efforts),
        user_id=asked.safety_identifier or asked.user,
    )


def runs_tools(asked: CompletionRequest) -> bool:
    """Tell whether the server's own tools are offered to the model."""
    return not asked.tools and asked.tool_choice != "none"


def _check(asked: CompletionRequest, able: ProviderCapabilities) -> None:
    longest = {asked.max_tokens, asked.max_completion_tokens} - {None}
    if len(longest) > 1:
        raise _refusal("max_tokens", "it is another limit than `max_completion_tokens`")
    if asked.stream_options is not None and not asked.stream:
        raise _refusal("stream_options", "expected beside `stream: true` alone")
    if asked.tools and not able.tools:
        raise _refusal("tools", "the model behind this server calls none")
    if not able.response_format and not isinstance(asked.response_format, TextForm | None):
        raise _refusal("response_format", "the model behind this server answers with text alone")


def _refusal(param: str, why: str) -> Problem:
    return Problem(message=f"{param}: {why}.", param=param)


def _tools(tools: Sequence[FunctionTool]) -> tuple[ToolDefinition, ...]:
    made: dict[str, ToolDefinition] = {}
    for at, tool in enumerate(tools):
        function = tool.function
        if function.name in made:
            raise _refusal(f"tools[{at}].function.name", f"{function.name!r} stands twice")
        parameters = function.parameters or {"type": "object", "properties": {}}
        made[function.name] = {
            "type": "function",
            "function": {
                "name": function.name,
                "description": function.description,
                "parameters": dict(parameters),
            },
        }
        if function.strict is not None:
            made[function.name]["function"]["strict"] = function.strict
    return tuple(made.values())


def _choice(asked: CompletionRequest) -> ToolChoice | None:
    choice, tools = asked.tool_choice, asked.tools or ()
    if not tools:
        if choice not in {None, "none", "auto"}:
            raise _refusal("tool_choice", "there are no `tools` in the request")
        return None
    if not isinstance(choice, NamedChoice):
        return choice
    name = choice.function.name
    if all(tool.function.name != name for tool in tools):
        raise _refusal("tool_choice", f"there is no tool {name[:100]!r} in `tools`")
    return NamedTool(name=name)


def _stops(asked: CompletionRequest) -> tuple[str, ...]:
    return (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())


def _format(asked: CompletionRequest) -> ResponseFormat | None:
    form = asked.response_format
    if form is None or isinstance(form, TextForm):
        return None
    if not isinstance(form, JsonSchemaForm):
        return JsonObjectFormat()
    named = form.json_schema
    schema: dict[str, JsonValue] = dict(named.schema_)
    if named.description is not None:
        schema.setdefault("description", named.description)
    return JsonSchemaFormat(name=named.name, schema=schema, strict=bool(named.strict))
