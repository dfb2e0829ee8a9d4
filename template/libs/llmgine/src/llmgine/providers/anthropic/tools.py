"""The tools of a request, those that only Anthropic knows included, and how to choose."""

from __future__ import annotations

from collections.abc import Callable

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import LLMRequest, NamedTool, ToolDefinition
from llmgine.errors import InvalidRequestError
from llmgine.providers.anthropic.parts import Block

__all__ = ["tools_of"]


def tools_of(
    request: LLMRequest, more: JsonValue, refusal: Callable[[str], InvalidRequestError]
) -> Block:
    """Return the fields of the body that speak of tools.

    Args:
        request: what is asked for.
        more: the tools among its options.
        refusal: makes the error for what Anthropic can't do.

    Raises:
        InvalidRequestError: a tool is demanded that isn't there, or `more` holds no tools.
    """
    tools = [*map(_tool, request.tools), *_added(more, refusal)]
    choice = request.tool_choice
    if isinstance(choice, NamedTool) and choice.name not in {each.get("name") for each in tools}:
        raise refusal(f"tool_choice: the request has no tool {choice.name!r}")
    if choice == "required" and not tools:
        raise refusal("tool_choice: 'required', but the request has no tools")
    if not tools:
        return {}
    chosen = _choice(request)
    return {"tools": tools} if chosen is None else {"tools": tools, "tool_choice": chosen}


def _added(more: JsonValue, refusal: Callable[[str], InvalidRequestError]) -> list[Block]:
    given = more if isinstance(more, list) else []
    added: list[Block] = [{**each} for each in given if isinstance(each, dict)]
    if more is not None and added != more:
        raise refusal("provider_options: expected 'tools' to be a list of objects")
    return added


def _tool(definition: ToolDefinition) -> Block:
    function = definition["function"]
    tool: Block = {
        "name": function["name"],
        "input_schema": {"type": "object", **function["parameters"]},
    }
    if function["description"]:
        tool["description"] = function["description"]
    if "strict" in function:
        tool["strict"] = function["strict"]
    return tool


def _choice(request: LLMRequest) -> Block | None:
    wanted, parallel = request.tool_choice, request.parallel_tool_calls
    if wanted is None and parallel is None:
        return None
    if wanted == "none":
        return {"type": "none"}
    if isinstance(wanted, NamedTool):
        choice: Block = {"type": "tool", "name": wanted.name}
    else:
        choice = {"type": "any" if wanted == "required" else "auto"}
    if parallel is not None:
        choice["disable_parallel_tool_use"] = not parallel
    return choice
