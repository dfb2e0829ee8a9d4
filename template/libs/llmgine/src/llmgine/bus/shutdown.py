"""How a bus stops: nothing new, then what is under way, then what is left is cut off."""

from __future__ import annotations

import asyncio
import time

from llmgine.bus.engine import Engine
from llmgine.bus.report import StopReport
from llmgine.bus.schedule import Schedule
from llmgine.bus.sessions import end_session
from llmgine.errors import BusStoppedError

__all__ = ["forget_loop", "shut_down"]


async def shut_down(engine: Engine, schedule: Schedule) -> StopReport:
    """Stop the engine in at most the drain limit and the grace for cancelled handlers."""
    began, counts = time.perf_counter(), engine.core.counts
    handled, dropped, interrupted = counts.handled, counts.dropped, counts.interrupted
    schedule.stop()
    for lane in engine.lanes.values():
        lane.guarded = True
        lane.turn_away(_stopped())
    settings = engine.core.settings
    try:
        async with asyncio.timeout(settings.drain_timeout):
            await _all_idle(engine)
            _end_sessions(engine)
            await _all_idle(engine)
    except TimeoutError:
        await _cut(engine, settings.cancel_grace)
        _end_sessions(engine)
        await _cut_after(engine, settings.cancel_grace / 2)
    report = StopReport(
        events_handled=counts.handled - handled,
        events_dropped=counts.dropped - dropped,
        handlers_interrupted=counts.interrupted - interrupted,
        handlers_abandoned=engine.core.abandoned,
        events_scheduled=len(schedule),
        duration=time.perf_counter() - began,
    )
    _forget_registrations(engine)
    engine.core.close()
    return report


def forget_loop(engine: Engine, schedule: Schedule) -> None:
    """Leave a loop that went away without a `stop`; its queued events wait for the next start."""
    schedule.stop()
    for lane in list(engine.lanes.values()):
        engine.kept.extend((event, context) for event, _, context, _, _ in lane.entries)
    _forget_registrations(engine)
    engine.core.close()


async def _all_idle(engine: Engine) -> None:
    while busy := [lane for lane in engine.lanes.values() if lane.busy or lane.commands_running]:
        await busy[0].idle(commands=True)


def _end_sessions(engine: Engine) -> None:
    for lane in list(engine.lanes.values()):
        if lane.is_session and not lane.ended:
            end_session(engine, lane, None)


async def _cut(engine: Engine, seconds: float) -> None:
    lanes = list(engine.lanes.values())
    for lane in lanes:
        lane.cut(_stopped())
    await asyncio.gather(*(lane.gone(seconds) for lane in lanes))
    for lane in lanes:
        lane.mend()


async def _cut_after(engine: Engine, seconds: float) -> None:
    """Give the sessions' last events a moment; a handler that has none left is cut off."""
    try:
        async with asyncio.timeout(seconds):
            await _all_idle(engine)
    except TimeoutError:
        await _cut(engine, 0.0)


def _forget_registrations(engine: Engine) -> None:
    """End what was registered since the start, and every lane that holds nothing else."""
    for lane in list(engine.lanes.values()):
        for handler in lane.handlers():
            if not handler.lasting or lane.ended or lane.is_session:
                handler.cancel()
        lane.reset()
        lane.settle()


def _stopped() -> BusStoppedError:
    return BusStoppedError("the bus stopped while this was under way")
