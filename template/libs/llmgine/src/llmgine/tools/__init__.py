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
"""

from llmgine.errors import ToolError, ToolRegistrationError
from llmgine.tools.manager import ToolManager
from llmgine.tools.parameters import ToolContext

__all__ = ["ToolContext", "ToolError", "ToolManager", "ToolRegistrationError"]
