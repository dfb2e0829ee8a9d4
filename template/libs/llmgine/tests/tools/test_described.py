"""Tools of another system, which bring a JSON Schema of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llmgine.contracts import MediaPart, TextPart, ToolCall, ToolResult
from llmgine.settings import ToolSettings
from llmgine.tools import ToolManager, ToolRegistrationError

SCHEMA = {
    "title": "kept",
    "type": "object",
    "properties": {"a": {"type": "integer", "x-theirs": True}},
    "required": ["a"],
}


async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return arguments


def manager(func: Any = echo, **options: Any) -> ToolManager:
    tools = ToolManager(settings=ToolSettings(max_argument_bytes=100, max_depth=3))
    values: dict[str, Any] = {"name": "theirs", "description": "Theirs.", "parameters": SCHEMA}
    tools.register_described_tool(func, **{**values, **options})
    return tools


def call(arguments: str, name: str = "theirs") -> ToolCall:
    return ToolCall(id="1", name=name, arguments=arguments)


def test_the_schema_is_shown_as_it_is_and_never_as_a_strict_one() -> None:
    function = manager().get_tools()[0]["function"]
    assert function == {"name": "theirs", "description": "Theirs.", "parameters": SCHEMA}
    strict = manager().get_tools(strict=True)[0]["function"]
    assert (strict["parameters"], strict.get("strict")) == (SCHEMA, False)


async def test_the_function_gets_the_object_that_the_model_sent() -> None:
    result = await manager().execute_tool_call(call('{"a": "no integer", "b": [null]}'))
    assert (result.text, result.is_error) == ('{"a":"no integer","b":[null]}', False)
    assert (await manager().execute_tool_call(call(""))).text == "{}"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("[1]", "invalid_json"),
        ("{", "invalid_json"),
        ('{"a": NaN}', "invalid_json"),
        ('{"a": 1, "a": 2}', "invalid_json"),
        ('{"a": [[[[1]]]]}', "arguments_too_deep"),
        ('{"a": "' + "x" * 100 + '"}', "arguments_too_large"),
    ],
)
async def test_the_limits_of_every_tool_hold(arguments: str, code: str) -> None:
    result = await manager().execute_tool_call(call(arguments))
    assert (result.is_error, result.error_code) == (True, code)


async def test_a_result_of_parts_keeps_them_and_gets_the_call_s_id() -> None:
    picture = MediaPart(kind="image", data=b"png", media_type="image/png")

    async def paint(arguments: dict[str, Any]) -> ToolResult:
        content = (TextPart(text="see:"), picture)
        return ToolResult(tool_call_id="", name="", content=content, is_error=True)

    result = await manager(paint).execute_tool_call(call("{}"))
    assert (result.tool_call_id, result.name, result.is_error) == ("1", "theirs", True)
    assert result.content == (TextPart(text="see:"), picture)


async def test_a_tool_that_is_offered_no_more_is_unknown() -> None:
    tools = manager()
    of_session = tools.for_session("s")
    tools.unregister_tool("theirs")
    tools.unregister_tool("theirs")
    assert of_session.get_tools() == []
    assert (await of_session.execute_tool_call(call("{}"))).error_code == "unknown_tool"
    tools.register_described_tool(echo, name="theirs", description="", parameters=SCHEMA)
    assert (await tools.execute_tool_call(call('{"a": 1}'))).text == '{"a":1}'


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "a.b"}, "expected a name of 1 to 64"),
        ({"parameters": {"type": "array"}}, "expected the schema of an object"),
        ({"parameters": {}}, "expected the schema of an object"),
        ({"parameters": {"type": "object", "default": {1, 2}}}, "expected a schema in JSON"),
        ({"parameters": {"type": "object", "maximum": float("inf")}}, "expected a schema in JSON"),
        ({"timeout": 0}, "timeout: expected more than 0"),
        ({"func": 3}, "expected a function"),
    ],
)
def test_what_can_t_be_offered_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ToolRegistrationError, match=text):
        manager(**options)


def test_a_name_is_given_once() -> None:
    tools = manager()
    with pytest.raises(ToolRegistrationError, match="registered already"):
        tools.register_described_tool(echo, name="theirs", description="", parameters=SCHEMA)
