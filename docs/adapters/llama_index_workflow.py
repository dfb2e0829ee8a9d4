"""A LlamaIndex workflow that answers a command: its steps call the application's own parts."""

import asyncio
from dataclasses import dataclass
from typing import Any

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import ChatMessage, Command, LLMRequest, closing, fold_stream
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    question: str


class Think(StartEvent):
    messages: tuple[Any, ...]


class Act(Event):
    messages: tuple[Any, ...]


class Answering(Workflow):
    def __init__(self, app: ApplicationBootstrap) -> None:
        super().__init__(timeout=None)  # the command has a limit
        self._app = app

    @step
    async def think(self, event: Think) -> Act | StopEvent:
        request = LLMRequest(messages=event.messages, tools=tuple(self._app.tools.get_tools()))
        async with closing(self._app.provider.stream(request)) as chunks:
            response = await fold_stream(chunks)
        if response.tool_calls:
            return Act(messages=(*event.messages, response.message))
        return StopEvent(result=response.text)

    @step
    async def act(self, event: Act) -> Think:
        calls = event.messages[-1].tool_calls
        results = await asyncio.gather(*map(self._app.tools.execute_tool_call, calls))
        return Think(messages=(*event.messages, ChatMessage.tool(*results)))


def register(app: ApplicationBootstrap) -> None:
    workflow = Answering(app)

    async def answer(command: Ask) -> str:
        run = workflow.run(messages=(ChatMessage.user(command.question),))
        try:
            return (await asyncio.shield(run.stop_event_result())).result
        except asyncio.CancelledError:
            await run.cancel_run()  # its steps are tasks of their own, which would run on
            raise

    app.bus.register_command_handler(Ask, answer)
