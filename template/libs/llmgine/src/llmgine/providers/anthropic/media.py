"""Where Anthropic finds a picture or a document."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from llmgine.contracts.chat import MediaPart
from llmgine.errors import InvalidRequestError

__all__ = ["source_of"]

_PDF = "application/pdf"
_TEXT = "text/plain"
_TAKEN = {
    "image": ("image/jpeg", "image/png", "image/gif", "image/webp"),
    "document": (_PDF, _TEXT),
}


def source_of(part: MediaPart, refusal: Callable[[str], InvalidRequestError]) -> dict[str, object]:
    """Return the `source` of a part's block.

    Args:
        part: an image or a document.
        refusal: makes the error for what Anthropic can't take.

    Raises:
        InvalidRequestError: its data is of a kind that isn't taken.
    """
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.url is None:
        return _data_source(part, part.data or b"", refusal)
    if part.url[:5].lower() != "data:":
        return {"type": "url", "url": part.url}
    unpacked, data = _unpacked(part, part.url[5:], refusal)
    return _data_source(unpacked, data, refusal)


def _data_source(
    part: MediaPart, data: bytes, refusal: Callable[[str], InvalidRequestError]
) -> dict[str, object]:
    given = part.media_type or (_PDF if part.kind == "document" else "")
    if part.kind == "document" and given.startswith("text/"):
        return {"type": "text", "media_type": _TEXT, "data": data.decode("utf-8", "replace")}
    if given not in _TAKEN[part.kind]:
        listed = ", ".join(_TAKEN[part.kind])
        raise refusal(
            f"messages: {part.kind} data needs a media_type of {listed}; found {part.media_type!r}"
        )
    return {"type": "base64", "media_type": given, "data": b64encode(data).decode("ascii")}


def _unpacked(
    part: MediaPart, address: str, refusal: Callable[[str], InvalidRequestError]
) -> tuple[MediaPart, bytes]:
    """Return what a `data:` address holds, and the part with the type that the address names."""
    about, _, packed = address.partition(",")
    media_type, *flags = about.split(";")
    data = unquote_to_bytes(packed)
    try:
        data = b64decode(data, validate=True) if "base64" in flags else data
    except ValueError:
        raise refusal("messages: a data: address holds no base64") from None
    return replace(part, media_type=media_type or part.media_type), data
