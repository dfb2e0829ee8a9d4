"""A turn as the user sees it: the answer appears while it is made, and Ctrl-C ends it.

Its tool calls have a line each, and those that need approval are a question. `ask` runs one turn
by itself, for who has no prompt.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import assistant
from assistant import AssistantConfig, RunTurn, TurnResult
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from llmgine.contracts import (
    LLMChunkEvent,
    ResolveToolApproval,
    StreamStart,
    TextDelta,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    Usage,
)
from llmgine.errors import ContextStoreError, ProviderError
from rich.text import Text

from chat.screen import MARKS, Screen, in_line, lasting, printable
from chat.trace import is_table

__all__ = [
    "FAILED",
    "OK",
    "SIGNALLED",
    "USAGE",
    "CallLines",
    "Decide",
    "Decision",
    "Outcome",
    "Question",
    "TurnView",
    "approve",
    "ask",
    "or_signal",
    "refuse",
    "say_what_was",
]

OK, FAILED, USAGE = 0, 1, 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

_NAME, _DURATION = 14, 7
_LONGEST = 4_000
_NOBODY = "nobody is there to be asked (`chat` asks at a terminal, `chat --approve` never does)"
_DENIED = frozenset({"denied", "expired", "cancelled", "interrupted"})

T = TypeVar("T")


class CallLines:
    """Shows the tool calls of one session.

    Args:
        session: the session, open.
        screen: where to show them.
    """

    def __init__(self, session: BusSession, screen: Screen) -> None:
        self._screen = screen
        session.register_event_handler(ToolExecuteStartedEvent, self._started, inline=True)
        session.register_event_handler(ToolExecuteResultEvent, self._ended, inline=True)

    def _started(self, event: ToolExecuteStartedEvent) -> None:
        given = ", ".join(f"{name}={value}" for name, value in _arguments(event.call).items())
        self._show("→", "cyan", event.call.name, f"{'':{_DURATION}}  {in_line(given)}")

    def _ended(self, event: ToolExecuteResultEvent) -> None:
        result = event.result
        kind = "ok" if not result.is_error else "error"
        sign, colour = MARKS["cancelled" if result.error_code in _DENIED else kind]
        text = f"{lasting(event.duration):>{_DURATION}}  {in_line(result.text)}"
        self._show(sign, colour, event.call.name, text)

    def _show(self, sign: str, colour: str, name: str, text: str) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"  {sign} ", style=colour)
        line.append(f"{in_line(name):<{_NAME}}  ", style="bold")
        line.append(text, style="dim")
        self._screen.line(line)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may run, and why not."""

    approved: bool
    reason: str = ""


Decide: TypeAlias = Callable[[ToolCall], Awaitable[Decision | None]]
"""Decides about a call; without a decision the turn ends."""


async def approve(call: ToolCall) -> Decision:
    """Let every call run: the user has said so beforehand."""
    del call
    return Decision(approved=True)


async def refuse(call: ToolCall) -> Decision:
    """Let no call run: nobody can be asked."""
    del call
    return Decision(approved=False, reason=_NOBODY)


class Question:
    """Asks the user at the terminal.

    Args:
        screen: where to ask.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    async def __call__(self, call: ToolCall) -> Decision | None:
        """Show what would be done and wait for yes or no; Ctrl-D is no, Ctrl-C ends the turn."""
        # A question from a pipe needs no prompt, and shouldn't wait for this to be imported.
        from prompt_toolkit import PromptSession

        self._screen.line(Text(f"  ? {in_line(call.name)} asks for your approval", style="yellow"))
        for name, value in _arguments(call).items():
            self._screen.line(Text(f"      {printable(f'{name} = {value}'[:_LONGEST])}"))
            if len(value) > _LONGEST:
                self._screen.remark(f"      ... and {len(value) - _LONGEST} characters more")
        prompt: PromptSession[str] = PromptSession()
        _forget_typed()
        with self._screen.asking():
            try:
                while True:
                    answer = (await prompt.prompt_async("    run it? [y/n] ")).strip().lower()
                    if answer in {"y", "yes"}:
                        return Decision(approved=True)
                    if answer in {"n", "no"}:
                        return Decision(approved=False)
            except EOFError:
                return Decision(approved=False)
            except KeyboardInterrupt:
                return None


def _forget_typed() -> None:
    """Drop what was typed before the question stood there: it can't be the answer."""
    from prompt_toolkit.application import get_app_session
    from prompt_toolkit.input.typeahead import clear_typeahead

    clear_typeahead(get_app_session().input)
    if sys.platform != "win32":
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def _arguments(call: ToolCall) -> dict[str, str]:
    """Return a call's arguments by name, each as JSON; what is no object has no name."""
    try:
        given: object = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if not is_table(given):
        return {"": call.arguments}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()}


Outcome = Literal["ok", "failed", "cancelled"]


class TurnView:
    """Runs the turns of one session and shows them.

    Args:
        session: the session, open.
        screen: where to show them.
        decide: who decides about tool calls that wait for approval.
    """

    def __init__(self, session: BusSession, screen: Screen, decide: Decide) -> None:
        self._session = session
        self._screen = screen
        self._decide = decide
        self._turn: asyncio.Task[TurnResult] | None = None
        self._waiting: asyncio.Queue[ToolApprovalRequestedEvent] = asyncio.Queue()
        self._written = False
        self._goes_on = False
        session.register_event_handler(LLMChunkEvent, self._show, inline=True)
        session.register_event_handler(ToolApprovalRequestedEvent, self._wait, inline=True)
        CallLines(session, screen)

    def cancel(self) -> None:
        """End the turn under way, if there is one; the conversation keeps what was said."""
        if self._turn is not None:
            self._turn.cancel()

    async def run(self, text: str) -> Outcome:
        """Run a turn; what goes wrong is said in a line."""
        self._written = self._goes_on = False
        self._waiting = asyncio.Queue()
        with self._screen.events.held():
            turn = self._turn = asyncio.create_task(self._session.execute(RunTurn(text=text)))
            deciding = asyncio.create_task(self._answer_approvals())
            # A turn can't go on where nobody decides any more.
            deciding.add_done_callback(lambda _: turn.cancel())
            try:
                # Waited for like this, its cancellation and ours can be told apart.
                await asyncio.wait([turn])
                deciding.cancel()
                await asyncio.wait([deciding])
                await self._session.bus.join()
            finally:
                self._turn = None
                deciding.cancel()
                self._screen.end_answer()
            undecided = None if deciding.cancelled() else deciding.exception()
            return self._judged(turn, undecided)

    async def _answer_approvals(self) -> None:
        """Have the calls that wait decided, one after the other, until there is no decision."""
        while True:
            event = await self._waiting.get()
            try:
                async with asyncio.timeout(event.expires_at - time.time()):
                    decision = await self._decide(event.call)
            except TimeoutError:
                continue
            if decision is None:
                return
            answer = ResolveToolApproval(
                call_id=event.call.id, approved=decision.approved, reason=decision.reason
            )
            if not await self._session.execute(answer):
                self._screen.remark("too late: the call waits no longer")

    def _judged(self, turn: asyncio.Task[TurnResult], undecided: BaseException | None) -> Outcome:
        if turn.cancelled() and undecided is None:
            self._screen.remark("(cancelled)")
            return "cancelled"
        error = undecided or turn.exception()
        if error is None:
            if not self._written:
                self._screen.remark("(the model gave no answer)")
            self._screen.remark(_tokens(turn.result().usage))
            return "ok"
        if not isinstance(error, Exception):
            raise error
        again = isinstance(error, ProviderError) and error.retryable
        hint = "; trying again may help" if again else ""
        self._screen.remark(f"{type(error).__name__}: {error}{hint}", "red")
        return "failed"

    def _show(self, event: LLMChunkEvent) -> None:
        if isinstance(event.chunk, StreamStart):
            self._goes_on = self._written  # after a tool; and there may be several attempts
        elif isinstance(event.chunk, TextDelta) and event.chunk.text:
            if self._goes_on:
                self._screen.end_answer()
                self._screen.write("\n")
            self._goes_on = False
            self._written = True
            self._screen.write(event.chunk.text)
            if self._screen.broken:
                self.cancel()

    def _wait(self, event: ToolApprovalRequestedEvent) -> None:
        self._waiting.put_nowait(event)


def _tokens(usage: Usage) -> str:
    """Return what a turn has cost, as far as it is known."""
    known = [
        f"{count:,} {way}"
        for way, count in (("in", usage.input_tokens), ("out", usage.output_tokens))
        if count is not None
    ]
    about = "about " if "estimated" in usage.details else ""
    return f"tokens: {about}{', '.join(known) or 'not reported'}"


# -- One turn by itself, and what ends the program


async def ask(config: AssistantConfig, session_id: str | None, text: str, decide: Decide) -> int:
    """Run one turn and return the exit status."""
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, tools=assistant.toolbox, setup=assistant.register)
        async with app, BusSession(session_id, bus=app.bus) as session:
            await say_what_was(app, session.session_id, screen)
            view = TurnView(session, screen, decide)
            outcome = await or_signal(app, view.run(text), signal.SIGINT, signal.SIGTERM)
    if isinstance(outcome, signal.Signals):
        return SIGNALLED + outcome
    # None: somebody asked the application to stop.
    return OK if outcome in {"ok", None} and not screen.broken else FAILED


async def say_what_was(app: ApplicationBootstrap, session_id: str, screen: Screen) -> None:
    """Say how long the conversation is that goes on, if it's no new one."""
    try:
        said = len(await app.context.get_context(session_id))
    except ContextStoreError as error:
        screen.remark(f"{type(error).__name__}: {error}", "red")
        return
    if said:
        screen.remark(f"The conversation goes on: {said} messages so far.")


async def or_signal(
    app: ApplicationBootstrap, work: Coroutine[object, object, T], *signals: signal.Signals
) -> T | signal.Signals | None:
    """Return what the work does, or the signal that came first; then the work is cancelled."""
    running = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(app.run_until_signal(*signals))
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        return waiting.result()
    finally:
        running.cancel()
        waiting.cancel()
