"""Messages of a conversation in the shape of chat completions."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from llmgine.contracts import (
    ChatMessage,
    MediaPart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts.chat import JsonObject, JsonValue, Part
from llmgine.errors import InvalidRequestError
from llmgine.providers._chat.dialect import Dialect
from llmgine.providers._sdk.shape import items, joined

__all__ = ["MessageWriter"]

_log = logging.getLogger(__name__)

_LONGEST_ID = 40
_AUDIO = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
}

Wire: TypeAlias = dict[str, JsonValue]
Refusal: TypeAlias = Callable[[str], InvalidRequestError]


class MessageWriter:
    """Writes conversations for one server.

    A history that another provider made is taken: ids are made legal, and what only that provider
    understands (its reasoning, say) is left out, which is logged once.

    Args:
        dialect: what the server takes.
        refusal: makes the error for what can't be sent.
    """

    def __init__(self, dialect: Dialect, refusal: Refusal) -> None:
        self._dialect = dialect
        self._refusal = refusal
        self._noted: set[str] = set()

    def written(self, messages: Sequence[ChatMessage]) -> list[Wire]:
        """Return the conversation, one message or more for each.

        Raises:
            InvalidRequestError: a message holds what chat completions can't say.
        """
        media: list[MediaPart] = []
        written = chain.from_iterable(self._message(message, media) for message in messages)
        return [*written, *self._shown(media)]

    def _message(self, message: ChatMessage, media: list[MediaPart]) -> Iterator[Wire]:
        if message.role == "assistant":
            yield from self._shown(media)
            yield self._named(message, self._assistant(message))
            return
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        for result in message.tool_results:
            yield self._result(result, media)
        if rest or not message.tool_results:
            yield from self._shown(media)
            role = "user" if message.role == "tool" else message.role
            content = [self._content(message, part) for part in rest if self._ours(part)]
            yield self._named(message, {"role": role, "content": _short(content)})

    def _shown(self, media: list[MediaPart]) -> Iterator[Wire]:
        """Yield the pictures of tool results, once all results of the turn have been written."""
        if media:
            yield {"role": "user", "content": [self._media(part) for part in media]}
            media.clear()

    def _named(self, message: ChatMessage, wire: Wire) -> Wire:
        named: Wire = {} if message.name is None else {"name": message.name}
        return {**wire, **named, **self._extra(message.provider_data)}

    def _ours(self, part: Part) -> bool:
        """Tell whether the server understands a part; note it where it can't."""
        if isinstance(part, ThinkingPart):
            if part.provider == self._dialect.provider:
                return self._dialect.send_reasoning
        elif not isinstance(part, OpaquePart) or part.provider == self._dialect.provider:
            return True
        what = "reasoning" if isinstance(part, ThinkingPart) else "a part that only it understands"
        self._note(f"{what} of {part.provider or 'another provider'}")
        return False

    def _note(self, what: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            _log.warning("left out of a history for %s: %s", self._dialect.provider, what)

    def _extra(self, data: JsonObject | None) -> Wire:
        """Return what of a part's `provider_data` the server takes."""
        taken = self._dialect.extras
        if data is None:
            return {}
        for name in data.keys() - taken if taken is not None else ():
            self._note(f"`{name}` of provider_data")
        return {name: value for name, value in data.items() if taken is None or name in taken}

    def _text(self, part: TextPart) -> Wire:
        return {"type": "text", "text": part.text, **self._extra(part.provider_data)}

    def _content(self, message: ChatMessage, part: Part) -> Wire:
        """Return a part of a message that isn't the model's."""
        if isinstance(part, TextPart):
            return self._text(part)
        if isinstance(part, MediaPart) and message.role == "user":
            return self._media(part)
        if isinstance(part, OpaquePart):
            return dict(part.data)
        raise self._refusal(f"messages: a {message.role} message can't hold {_kind(part)}")

    def _media(self, part: MediaPart) -> Wire:
        extra = self._extra(part.provider_data)
        writers = {"image": self._image, "document": self._document, "audio": self._audio}
        writer = writers.get(part.kind)
        wire = None if writer is None else writer(part, extra)
        if wire is None:
            given = "data" if part.data is not None else "url" if part.url else "file_id"
            raise self._refusal(f"messages: chat completions don't take {part.kind} by {given}")
        return {**wire, **extra}

    def _image(self, part: MediaPart, extra: Wire) -> Wire | None:
        if part.file_id is not None:
            return None
        detail = {"detail": extra.pop("detail")} if "detail" in extra else {}
        url = part.url or self._data_url(part)
        return {"type": "image_url", "image_url": {"url": url, **detail}}

    def _document(self, part: MediaPart, _: Wire) -> Wire | None:
        if part.url is not None:
            return None
        file: Wire = {"file_id": part.file_id}
        if part.file_id is None:
            file = {"filename": part.name or "document.pdf", "file_data": self._data_url(part)}
        return {"type": "file", "file": file}

    def _audio(self, part: MediaPart, _: Wire) -> Wire | None:
        if part.data is None:
            return None
        kind = _AUDIO.get(part.media_type or "")
        if kind is None:
            found = part.media_type
            raise self._refusal(f"messages: expected audio/mpeg or audio/wav, found {found!r}")
        sound: Wire = {"data": b64encode(part.data).decode(), "format": kind}
        return {"type": "input_audio", "input_audio": sound}

    def _data_url(self, part: MediaPart) -> str:
        if part.media_type is None:
            raise self._refusal(f"messages: {part.kind} data needs its media_type")
        return f"data:{part.media_type};base64,{b64encode(part.data or b'').decode()}"

    def _result(self, result: ToolResult, media: list[MediaPart]) -> Wire:
        """Return a tool's result; pictures follow in a user's message, since here is text only."""
        content: JsonValue = result.text
        if not isinstance(result.content, str):
            shown = [part for part in result.content if isinstance(part, MediaPart)]
            media.extend(shown)
            texts = [self._result_text(part) for part in result.content]
            content = _short(texts)
        if result.is_error:
            content = _marked(content)
        return {"role": "tool", "tool_call_id": _legal(result.tool_call_id), "content": content}

    def _result_text(self, part: TextPart | MediaPart) -> Wire:
        if isinstance(part, TextPart):
            return self._text(part)
        named = f" {part.name}" if part.name else ""
        return {"type": "text", "text": f"[{part.kind}{named}: in the user message that follows]"}

    def _assistant(self, message: ChatMessage) -> Wire:
        content: list[Wire] = []
        calls: list[JsonValue] = []
        rest: Wire = {}
        for part in filter(self._ours, message.parts):
            if isinstance(part, TextPart):
                content.append(self._text(replace(part, text=_mended(part.text))))
            elif isinstance(part, ToolCall):
                calls.append({**self._extra(part.provider_data), **_call(part)})
            elif isinstance(part, OpaquePart) and "type" in part.data:
                content.append(dict(part.data))
            else:
                for name, value in self._field(part).items():
                    rest[name] = joined(rest.get(name), value)
        calls += items(rest.pop("tool_calls", None))
        said = _short(content) if content or not (calls or rest) else None
        wire: Wire = {"role": "assistant", "content": said, **rest}
        return {**wire, "tool_calls": calls} if calls else wire

    def _field(self, part: Part) -> Wire:
        """Return a part of an assistant's message that has a field of its own."""
        if isinstance(part, RefusalPart):
            return {"refusal": part.text}
        if isinstance(part, ThinkingPart):
            return {"reasoning_content": part.text}
        if isinstance(part, OpaquePart):
            return _sendable(dict(part.data))
        raise self._refusal(f"messages: an assistant message can't hold {_kind(part)}")


def _mended(text: str) -> str:
    """Return a model's text that can be sent: some streams cut characters in halves."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _kind(part: Part) -> str:
    return f"a {type(part).__name__}"


def _sendable(fields: Wire) -> Wire:
    """Return fields of an answer as they go back: sound is named, not sent again."""
    sound = fields.get("audio")
    return {**fields, "audio": {"id": sound.get("id")}} if isinstance(sound, dict) else fields


def _short(content: Sequence[Wire]) -> JsonValue:
    """Return content as plain text where that says it all."""
    if not content:
        return ""
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        return content[0]["text"]
    return list(content)


def _call(call: ToolCall) -> Wire:
    # Half a character can't be sent; as JSON escapes it is the same.
    arguments = call.arguments.encode(errors="backslashreplace").decode()
    function: Wire = {"name": call.name, "arguments": arguments}
    return {"id": _legal(call.id), "type": "function", "function": function}


def _legal(call_id: str) -> str:
    """Return a call's id as OpenAI takes it: the same for the call and for its result."""
    if 0 < len(call_id) <= _LONGEST_ID and call_id.isascii() and call_id.isprintable():
        return call_id
    return f"call_{hashlib.sha256(call_id.encode(errors='surrogatepass')).hexdigest()[:24]}"


def _marked(content: JsonValue) -> JsonValue:
    """Return a result's content with the word that it is an error: there is no field for it."""
    if isinstance(content, str):
        return content if content.lower().startswith("error") else f"Error: {content}"
    mark: Wire = {"type": "text", "text": "Error:"}
    return [mark, *content] if isinstance(content, list) else content
