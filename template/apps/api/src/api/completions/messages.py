"""Messages in OpenAI's shape as ours."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence

from llmgine.contracts import (
    ChatMessage,
    MediaPart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts.chat import Part

from api.completions.schema import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    RefusalContent,
    TextContent,
    ToolMessage,
    UserMessage,
    UserPart,
)
from api.problems import Problem

__all__ = ["conversation", "decoded"]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w-]+=[^;,]*)*;base64,", re.ASCII)
_SHOWN = 40
_SOUND = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def conversation(messages: Sequence[Message], provider: str, *, media: bool) -> list[ChatMessage]:
    """Return a conversation.

    Args:
        messages: what a request says it was.
        provider: the provider's name, whose reasoning it is that comes back.
        media: whether the provider takes pictures, sound and documents.

    Raises:
        Problem: a message can't be meant: a result without its call, say, or a wrong data URL.
    """
    reader = _Reader(provider, media=media)
    for at, message in enumerate(messages):
        reader.take(message, f"messages[{at}]")
    return reader.end()


class _Reader:
    """Reads messages, oldest first."""

    def __init__(self, provider: str, *, media: bool) -> None:
        self._provider = provider
        self._media = media
        self._read: list[ChatMessage] = []
        self._waiting: dict[str, str] = {}  # names of the tools whose results are due, by call id
        self._results: list[ToolResult] = []
        self._calls_at = ""

    def take(self, message: Message, where: str) -> None:
        """Take the next message, which stands at `where` in the request."""
        if isinstance(message, ToolMessage):
            self._take_result(message, where)
            return
        self._check_answered()
        if isinstance(message, AssistantMessage):
            self._take_answer(message, where)
        elif isinstance(message, UserMessage):
            parts = tuple(self._shown(message.content, f"{where}.content"))
            self._read.append(ChatMessage(role="user", parts=parts, name=message.name))
        else:
            parts = _texts(message.content)
            self._read.append(ChatMessage(role="system", parts=parts, name=message.name))

    def end(self) -> list[ChatMessage]:
        """Return what was read."""
        self._check_answered()
        return self._read

    def _take_answer(self, message: AssistantMessage, where: str) -> None:
        parts = tuple(self._said(message))
        if not parts:
            text = f"{where}.content: expected a text, a refusal or tool calls, found none of them."
            raise Problem(message=text, param=f"{where}.content")
        self._read.append(ChatMessage(role="assistant", parts=parts, name=message.name))
        self._calls_at = f"{where}.tool_calls"
        for call in message.tool_calls or ():
            if call.id in self._waiting:
                text = f"{self._calls_at}: two calls have the id {call.id[:_SHOWN]!r}."
                raise Problem(message=text, param=self._calls_at)
            self._waiting[call.id] = call.function.name

    def _take_result(self, message: ToolMessage, where: str) -> None:
        name = self._waiting.pop(message.tool_call_id, None)
        if name is None:
            param = f"{where}.tool_call_id"
            text = (
                f"{param}: {message.tool_call_id[:_SHOWN]!r} is no call that waits for its result; "
                "results follow the assistant's message with the calls, one for each."
            )
            raise Problem(message=text, param=param)
        texts = _texts(message.content)
        content = texts[0].text if len(texts) == 1 else texts
        result = ToolResult(tool_call_id=message.tool_call_id, name=name, content=content)
        self._results.append(result)
        if not self._waiting:
            self._read.append(ChatMessage.tool(*self._results))
            self._results.clear()

    def _check_answered(self) -> None:
        if self._waiting:
            missing = next(iter(self._waiting))
            what = f"no result of call {missing[:_SHOWN]!r} follows as a tool's message"
            text = f"{self._calls_at}: {what}."
            raise Problem(message=text, param=self._calls_at)

    def _said(self, message: AssistantMessage) -> Iterator[Part]:
        calls = message.tool_calls or ()
        if message.reasoning_content:
            yield ThinkingPart(text=message.reasoning_content, provider=self._provider)
        if message.content or (message.content == "" and not (message.refusal or calls)):
            yield from _parts(message.content)
        if message.refusal:
            yield RefusalPart(text=message.refusal)
        for call in calls:
            function = call.function
            yield ToolCall(id=call.id, name=function.name, arguments=function.arguments)

    def _shown(self, content: str | list[UserPart], where: str) -> Iterator[Part]:
        if isinstance(content, str):
            yield TextPart(text=content)
            return
        for at, part in enumerate(content):
            if isinstance(part, TextContent):
                yield TextPart(text=part.text)
                continue
            param = f"{where}[{at}]"
            if not self._media:
                text = f"{param}: the model behind this server reads text only, found {part.type}."
                raise Problem(message=text, param=param)
            yield _media(part, param)


def _parts(content: str | Sequence[TextContent | RefusalContent]) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(text=content)
        return
    for part in content:
        if isinstance(part, TextContent):
            yield TextPart(text=part.text)
        else:
            yield RefusalPart(text=part.refusal)


def _texts(content: str | list[TextContent]) -> tuple[TextPart, ...]:
    texts = [content] if isinstance(content, str) else [part.text for part in content]
    return tuple(TextPart(text=text) for text in texts)


def _media(part: ImagePart | AudioPart | FilePart, where: str) -> MediaPart:
    if isinstance(part, ImagePart):
        return _picture(part, f"{where}.image_url.url")
    if isinstance(part, AudioPart):
        data = decoded(part.input_audio.data, f"{where}.input_audio.data")
        return MediaPart(kind="audio", media_type=_SOUND[part.input_audio.format], data=data)
    return _document(part, f"{where}.file")


def _picture(part: ImagePart, where: str) -> MediaPart:
    picture = part.image_url
    data = None if picture.detail == "auto" else {"detail": picture.detail}
    if picture.url.startswith(("http://", "https://")):
        return MediaPart(kind="image", url=picture.url, provider_data=data)
    media_type, content = _of_data_url(picture.url, where)
    if not media_type.startswith("image/"):
        raise Problem(message=f"{where}: expected a picture, found {media_type}.", param=where)
    return MediaPart(kind="image", media_type=media_type, data=content, provider_data=data)


def _document(part: FilePart, where: str) -> MediaPart:
    file = part.file
    if (file.file_id is None) == (file.file_data is None):
        text = f"{where}: expected either `file_data` or `file_id`."
        raise Problem(message=text, param=where)
    if file.file_data is None:
        return MediaPart(kind="document", file_id=file.file_id, name=file.filename)
    media_type, content = _of_data_url(file.file_data, f"{where}.file_data")
    return MediaPart(kind="document", media_type=media_type, data=content, name=file.filename)


def _of_data_url(url: str, where: str) -> tuple[str, bytes]:
    found = _DATA_URL.match(url)
    if found is None:
        text = f"{where}: expected http(s):// or data:<type>;base64,<data>, found {url[:_SHOWN]!r}."
        raise Problem(message=text, param=where)
    return found[1], decoded(url[found.end() :], where)


def decoded(text: str, where: str) -> bytes:
    """Return what a text in base64 says, which stands at `where` in the request.

    Raises:
        Problem: it isn't base64, or empty.
    """
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise Problem(message=f"{where}: expected data in base64.", param=where)
    return data
