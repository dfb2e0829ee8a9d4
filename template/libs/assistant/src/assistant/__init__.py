"""One conversation turn as a command over the bus, for every application.

app = ApplicationBootstrap(setup=assistant.register)
async with app, BusSession(bus=app.bus) as session:
    result = await session.execute(RunTurn(text="Hello"))
"""

from assistant.service import register
from assistant.turn import EmptyTurnError, RunTurn, TurnResult

__all__ = ["EmptyTurnError", "RunTurn", "TurnResult", "register"]
