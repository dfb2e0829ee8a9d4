"""A pydantic-ai agent that answers a command, with the application's model and tools."""

import json
from dataclasses import dataclass

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import Command, ToolCall
from pydantic_ai import Agent, RunContext, Tool, ToolFailed

from pydantic_ai_model import as_model


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    question: str


def register(app: ApplicationBootstrap) -> None:
    async def call(context: RunContext, **arguments: object) -> str:
        wanted = ToolCall(
            id=context.tool_call_id or "",
            name=context.tool_name or "",
            arguments=json.dumps(arguments),
        )
        result = await app.tools.execute_tool_call(wanted)
        if result.is_error:
            raise ToolFailed(result.text)
        return result.text

    functions = [each["function"] for each in app.tools.get_tools()]
    tools = [
        Tool.from_schema(
            call, each["name"], each["description"], each["parameters"], takes_ctx=True
        )
        for each in functions
    ]
    agent = Agent(as_model(app.provider), tools=tools, instructions="Answer in a sentence.")

    async def answer(command: Ask) -> str:
        return (await agent.run(command.question)).output

    app.bus.register_command_handler(Ask, answer)
