"""What a model may call: functions, described from their annotations and docstrings.

    tools = ToolManager()

    @tools.register_tool
    async def weather(city: str, days: Annotated[int, Field(ge=1, le=7)] = 1) -> Forecast:
        \"\"\"Tell the weather.

        :param city: where.
        :param days: for how many days.
        \"\"\"

    request = LLMRequest(messages=..., tools=tuple(tools.get_tools()))
    result = await tools.execute_tool_call(response.tool_calls[0])

A parameter annotated as `ToolContext` is hidden from the model and filled here; other things that
are none of the model's business are bound before (`functools.partial`, a method's object). What a
tool raises stays in the log; `ToolError` alone reaches the model.

An error result has one of these codes:

    invalid_json, invalid_arguments         what the model sent can't be read, or doesn't fit
    arguments_too_large, arguments_too_deep ... or is past a limit
    unknown_tool                            there is no such tool
    denied, expired, duplicate_call         a person said no, nobody answered, or it is being asked
    busy, timeout                           too many calls hang, or this one did
    cancelled                               the caller went away
    tool_error (or the error's own `code`)  the tool raised `ToolError`
    failed                                  it raised anything else, or returned what has no JSON
"""

from llmgine.errors import ToolError, ToolRegistrationError
from llmgine.tools.manager import ToolManager
from llmgine.tools.parameters import ToolContext

__all__ = ["ToolContext", "ToolError", "ToolManager", "ToolRegistrationError"]
