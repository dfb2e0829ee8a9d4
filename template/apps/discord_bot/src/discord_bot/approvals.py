"""Tool calls that wait for a click: buttons for the one who asked, and for nobody else."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from secrets import token_hex

import discord
from discord.ui import Button, View
from llmgine.bus import BusSession
from llmgine.contracts import (
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
)
from llmgine.errors import LlmgineError

from discord_bot.answer import Say
from discord_bot.reports import TROUBLE, trouble
from discord_bot.saying import escaped

__all__ = ["Approvals"]

_log = logging.getLogger(__name__)
_PREFIX = "llmgine-approval"
_LONGEST = 1500
_GONE = "This waits no longer."
_APPROVED, _DENIED = "✅ Approved.", "⛔ Denied."


@dataclass(slots=True)
class _Waiting:
    """A call that waits, and the message that asks."""

    session: BusSession
    call: ToolCall
    asker: discord.abc.User
    text: str
    message: discord.Message | None = None
    outcome: str = ""

    @property
    def ended(self) -> str:
        """What the message says once it is over."""
        return f"{self.text}\n{self.outcome}"


class Approvals:
    """The calls of all conversations that wait for a click."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def expect(
        self, session: BusSession, event: ToolApprovalRequestedEvent, asker: discord.abc.User
    ) -> str:
        """Take a call that waits, before anybody is asked; return what `ask` knows it by."""
        key = token_hex(8)
        self._waiting[key] = _Waiting(session, event.call, asker, _question(event, asker))
        return key

    async def ask(self, key: str, say: Say) -> None:
        """Ask whether a call may run, unless it is over by now.

        Raises:
            DiscordException: the question can't be sent.
            OSError: nor can Discord be reached.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        try:
            waiting.message = await say(waiting.text, _buttons(key))
        except BaseException:
            self._waiting.pop(key, None)
            raise
        if waiting.outcome:  # it was over before the question stood there
            await _close(waiting)

    async def settle(self, event: ToolApprovalResolvedEvent) -> None:
        """Disable the buttons of a call that waits no longer, where no click has done it."""
        for key, waiting in tuple(self._waiting.items()):
            if (waiting.session.session_id, waiting.call.id) == (event.session_id, event.call.id):
                del self._waiting[key]
                reason = event.reason or "it was refused"
                waiting.outcome = _APPROVED if event.approved else f"⌛ Not run: {reason}."
                await _close(waiting)

    async def pressed(self, interaction: discord.Interaction[discord.Client]) -> None:
        """Hear a click, if it is on a button of ours."""
        custom_id = "" if interaction.data is None else interaction.data.get("custom_id", "")
        prefix, _, rest = str(custom_id).partition(":")
        if prefix != _PREFIX:
            return
        key, _, answer = rest.partition(":")
        waiting = self._waiting.get(key)
        if waiting is not None and interaction.user.id != waiting.asker.id:
            refusal = f"Only {waiting.asker.mention} can decide about this."
            await interaction.response.send_message(refusal, ephemeral=True)
            return
        if waiting is None:
            # What came of it may stand there already: the words of the message stay.
            await interaction.response.edit_message(view=_buttons(key, disabled=True))
            await interaction.followup.send(_GONE, ephemeral=True)
            return
        del self._waiting[key]
        waiting.outcome = await _decide(waiting, approved=answer == "yes")
        try:
            await interaction.response.edit_message(
                content=waiting.ended, view=_buttons(key, disabled=True)
            )
        except TROUBLE:
            await _close(waiting)  # it is decided all the same, and people should see that
            raise


async def _decide(waiting: _Waiting, *, approved: bool) -> str:
    command = ResolveToolApproval(call_id=waiting.call.id, approved=approved)
    try:
        heard = await waiting.session.execute(command)
    except LlmgineError:  # the session has just ended
        heard = False
    if not heard:
        return _GONE
    return _APPROVED if approved else _DENIED


async def _close(waiting: _Waiting) -> None:
    if waiting.message is None:
        return
    try:
        await waiting.message.edit(content=waiting.ended, view=_buttons("", disabled=True))
    except TROUBLE as error:
        _log.warning("the buttons of a call can't be disabled: %s", trouble(error))


def _buttons(key: str, *, disabled: bool = False) -> View:
    """Return the two buttons. Clicks on them come to `Approvals.pressed`, not to the view."""
    view = View(timeout=None)
    green, red = discord.ButtonStyle.success, discord.ButtonStyle.danger
    for label, style, answer in (("Approve", green, "yes"), ("Deny", red, "no")):
        custom_id = f"{_PREFIX}:{key}:{answer}"
        view.add_item(Button(label=label, style=style, custom_id=custom_id, disabled=disabled))
    view.stop()  # so that the client keeps nothing of it
    return view


def _question(event: ToolApprovalRequestedEvent, asker: discord.abc.User) -> str:
    given = _visible(_pretty(event.call.arguments)).replace("```", "'''")
    if len(given) > _LONGEST // 2:
        more = len(given) - _LONGEST // 2
        given = f"{given[: _LONGEST // 2]}\n... and {more} characters more"
    name = escaped(event.call.name[:64])
    until = f"<t:{int(event.expires_at)}:R>"
    return f"{asker.mention}, may **{name}** run? ({until})\n```json\n{given}\n```"


def _visible(text: str) -> str:
    """Return the text with escapes for what isn't seen, or turns the direction of reading."""
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text
    )


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments or "{}"), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
