"""The routes of sessions: what there is, what was said, turns, approvals, and events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from llmgine.contracts import new_id

from api.parts import Application
from api.problems import Problem
from api.sessions.history import message_of
from api.sessions.log import QUIET, EventLog
from api.sessions.models import (
    Answer,
    Approval,
    Approvals,
    Fork,
    Messages,
    NewSession,
    NewTurn,
    Session,
    SessionList,
    TurnId,
)
from api.sessions.parts import Existing, Finder, Registry, Watched

__all__ = ["router"]

_CREATED = 201
_ACCEPTED = 202
_NO_CONTENT = 204
_MISSING = 404
_CONFLICT = 409
_MOST_LISTED = 100
_SILENCE = 15.0
_FEED = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # proxies would hold events back until there are many
}

router = APIRouter(prefix="/sessions", tags=["sessions"])


@router.post("", status_code=_CREATED)
async def create_session(
    finder: Finder, sessions: Registry, body: NewSession | None = None
) -> Session:
    """Make a session. It holds nothing yet; this process alone knows it until it does."""
    del body
    session_id = new_id()
    sessions.note(session_id)
    return await finder.find(session_id)


@router.get("")
async def list_sessions(
    finder: Finder,
    limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 50,
    after: Annotated[str | None, Query(description="The `next` of the list before.")] = None,
) -> SessionList:
    """List the sessions, the one that changed last first."""
    return await finder.page(limit, after or None)


@router.get("/{session_id}")
async def get_session(session_id: Existing, finder: Finder) -> Session:
    """Tell of a session."""
    return await finder.find(session_id)


@router.delete("/{session_id}", status_code=_NO_CONTENT)
async def delete_session(session_id: Existing, app: Application, sessions: Registry) -> None:
    """Forget a session and its conversation; a turn under way is stopped."""
    async with sessions.gone(session_id):
        await app.context.clear_context(session_id)


@router.get("/{session_id}/messages")
async def get_messages(session_id: Existing, app: Application) -> Messages:
    """Return the conversation; a turn adds to it as it goes."""
    messages = await app.context.get_context(session_id)
    return Messages(messages=[message_of(each) for each in messages], version=len(messages))


@router.delete("/{session_id}/messages", status_code=_NO_CONTENT)
async def clear_messages(session_id: Existing, app: Application, sessions: Registry) -> None:
    """Forget what was said, and keep the session."""
    live = sessions.live(session_id)
    if live is not None and live.turn is not None:
        text = f"turn {live.turn.id} would go on from what is forgotten: stop it first"
        raise Problem(status=_CONFLICT, message=text, code="turn_running")
    await app.context.clear_context(session_id)
    sessions.note(session_id)


@router.post("/{session_id}/fork", status_code=_CREATED)
async def fork_session(
    session_id: Existing,
    app: Application,
    finder: Finder,
    sessions: Registry,
    body: Fork | None = None,
) -> Session:
    """Copy the conversation, or its beginning, into a new session."""
    messages = await app.context.get_context(session_id)
    at = None if body is None else body.at
    if at is not None and at > len(messages):
        text = f"at: expected a number up to {len(messages)}, found {at}"
        raise Problem(message=text, param="at")
    copy = new_id()
    await app.context.add_messages(copy, messages[:at])
    sessions.note(copy)
    return await finder.find(copy)


@router.post("/{session_id}/turns", status_code=_ACCEPTED)
async def start_turn(session_id: Existing, body: NewTurn, sessions: Registry) -> TurnId:
    """Say something. The answer comes as events, the last of which is `TurnEnded`."""
    if not body.text.strip():
        raise Problem(message="text: expected something to answer, found white space", param="text")
    async with sessions.used(session_id) as live:
        return TurnId(turn_id=live.start_turn(body.text))


@router.delete("/{session_id}/turns", status_code=_ACCEPTED)
async def stop_turn(session_id: Existing, sessions: Registry) -> TurnId:
    """Stop the turn under way; what it has said so far is kept."""
    live = sessions.live(session_id)
    turn = None if live is None else live.stop_turn()
    if turn is None:
        raise Problem(status=_MISSING, message="no turn is under way in this session")
    return TurnId(turn_id=turn.id)


@router.get("/{session_id}/approvals")
async def list_approvals(session_id: Existing, sessions: Registry) -> Approvals:
    """List the tool calls that wait for a person."""
    live = sessions.live(session_id)
    waiting = () if live is None else live.approvals.values()
    return Approvals(approvals=[Approval.of(each) for each in waiting])


@router.post("/{session_id}/approvals/{call_id:path}")
async def answer_approval(
    session_id: Existing, call_id: str, body: Answer, sessions: Registry
) -> Answer:
    """Let a call run, or not. Once answered it waits no more: a second answer finds nothing."""
    live = sessions.live(session_id)
    found = live is not None and await live.resolve(
        call_id, approved=body.approved, reason=body.reason
    )
    if not found:
        text = f"no call {call_id!r} waits for approval in this session"
        raise Problem(status=_MISSING, message=text, param="call_id")
    return body


@router.get(
    "/{session_id}/events",  # noqa: FAST003 - for Watched
    response_class=Response,
    responses={200: {"content": {EventSourceResponse.media_type: {"schema": {"type": "string"}}}}},
)
async def watch_events(
    live: Watched,
    after: Annotated[
        str | None,
        Query(description="The id of the last event that is known; `0` gives all that are kept."),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it when they reconnect.")
    ] = None,
) -> EventSourceResponse:
    """Stream the session's events: those of the bus, `TurnEnded` and `Reset`.

    Without an id the stream begins with the turn under way, or with what is new. `Reset` says that
    events are missing before the next one: load the messages again.
    """
    # Not as FastAPI's generators: those end in an error when a reader leaves while they send.
    return EventSourceResponse(_feed(live.log, last_event_id or after or None), headers=_FEED)


async def _feed(log: EventLog, after: str | None) -> AsyncGenerator[bytes, None]:
    async for entry in log.watch(after, silence=_SILENCE):
        if entry is QUIET:
            yield KEEPALIVE_COMMENT
        else:
            yield format_sse_event(data_str=entry.data, event=entry.kind, id=entry.id)
