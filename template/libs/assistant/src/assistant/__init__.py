"""Conversation turns with tools as commands over the bus, for every application.

app = ApplicationBootstrap(AssistantConfig(), tools=assistant.toolbox, setup=assistant.register)
async with app, BusSession(bus=app.bus) as session:
    result = await session.execute(RunTurn(text="Hello"))
"""

from assistant.answer import AnswerRequest
from assistant.files import AssistantConfig, AssistantSettings
from assistant.run import EmptyTurnError, RunTurn, TurnResult
from assistant.service import register
from assistant.tools import toolbox

__all__ = [
    "AnswerRequest",
    "AssistantConfig",
    "AssistantSettings",
    "EmptyTurnError",
    "RunTurn",
    "TurnResult",
    "register",
    "toolbox",
]
