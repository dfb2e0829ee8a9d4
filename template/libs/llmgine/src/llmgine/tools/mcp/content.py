"""What an MCP server returns, as a tool's result."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode

from mcp import types

from llmgine.contracts import MediaPart, TextPart, ToolResult
from llmgine.contracts.chat import MediaKind

__all__ = ["as_result"]

# Text has the limit of the tool manager; this is for what is no text.
_MOST_MEDIA = 8 * 1024 * 1024
_KINDS: dict[str, MediaKind] = {"image": "image", "audio": "audio", "video": "video"}


def as_result(result: types.CallToolResult) -> ToolResult:
    """Return a server's result; the tool manager says whose it is."""
    parts = [_part(block) for block in result.content]
    if result.structured_content is not None and not _has_text(parts):
        # Servers are asked to repeat it as text, and most do.
        parts.append(TextPart(text=json.dumps(result.structured_content, ensure_ascii=False)))
    code = "tool_error" if result.is_error else None
    return ToolResult(
        tool_call_id="",
        name="",
        content=_joined(parts),
        is_error=result.is_error,
        error_code=code,
    )


def _has_text(parts: list[TextPart | MediaPart]) -> bool:
    return any(isinstance(part, TextPart) and part.text for part in parts)


def _joined(parts: list[TextPart | MediaPart]) -> str | tuple[TextPart | MediaPart, ...]:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(texts) if len(texts) == len(parts) else tuple(parts)


def _part(block: types.ContentBlock) -> TextPart | MediaPart:
    match block:
        case types.TextContent():
            return TextPart(text=block.text)
        case types.ImageContent() | types.AudioContent():
            return _media(block.data, block.mime_type, None)
        case types.ResourceLink():
            words = f": {block.description}" if block.description else ""
            return TextPart(text=f"[resource {block.name}, {block.uri}{words}]")
        case types.EmbeddedResource(resource=types.TextResourceContents() as found):
            return TextPart(text=f"[{found.uri}]\n{found.text}")
        case types.EmbeddedResource(resource=types.BlobResourceContents() as found):
            media_type = found.mime_type or "application/octet-stream"
            return _media(found.blob, media_type, str(found.uri))
        case _:
            return TextPart(text=f"[content of a kind that isn't known: {block.type}]")


def _media(data: str, media_type: str, name: str | None) -> TextPart | MediaPart:
    what = f"{media_type}{f', {name}' if name else ''}"
    if len(data) // 4 * 3 > _MOST_MEDIA:
        return TextPart(text=f"[{what}: left out, it has more than {_MOST_MEDIA} bytes]")
    try:
        content = b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return TextPart(text=f"[{what}: left out, it is no base64]")
    kind = _KINDS.get(media_type.partition("/")[0], "document")
    return MediaPart(kind=kind, data=content, media_type=media_type, name=name)
