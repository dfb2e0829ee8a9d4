"""Reading files below one folder, and nothing else; the setting that names the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import ClassVar

from llmgine.bootstrap import ApplicationConfig
from llmgine.errors import ToolError

__all__ = ["AssistantConfig", "AssistantSettings", "FileReader"]


@dataclass(frozen=True, kw_only=True)
class AssistantSettings:
    """What the assistant may do.

    Attributes:
        folder: where its tool `read_file` may read; by default the folder of settings.toml.
    """

    folder: Path = Path()


class AssistantConfig(ApplicationConfig):
    """The application's settings and the example's own: `[assistant]` in settings.toml.

    Attributes:
        assistant: what the assistant may do.
    """

    elsewhere: ClassVar[frozenset[str]] = frozenset({"api", "discord"})  # of single applications
    assistant: AssistantSettings = AssistantSettings()

    def __init__(
        self, *, settings_file: str | Path | EllipsisType | None = ..., **values: object
    ) -> None:
        """Read the settings; for type checkers, which would expect a parameter for each group."""
        super().__init__(settings_file=settings_file, **values)


_MOST_BYTES = 1024 * 1024
_MOST_LINES = 400
_MOST_NAMES = 200
# Less than a tool's result may have, so that the hint how to read on isn't cut off.
_MOST_SHOWN = 48 * 1024


class FileReader:
    """Reads text files below a folder, and lists folders.

    Whatever lies elsewhere, also by way of a link, is refused, and so are names that begin with
    a dot: `.env` and `.git` are no business of a model.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_file(self, path: str, first_line: int = 1) -> str:
        """Read a text file, or list a folder.

        Args:
            path: where it lies, such as "README.md" or "docs"; "." lists what there is.
            first_line: the line to begin at; a long file is read a few hundred lines at a time.
        """
        place = self._place(path)
        try:
            if place.is_dir():
                return _listing(place)
            if place.exists() and not place.is_file():
                raise ToolError(f"{path!r} is no file that can be read.")
            with place.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ToolError(f"{path!r} can't be read: {error.strerror}.") from None
        return _lines(_text(path, data), max(1, first_line))

    def _place(self, path: str) -> Path:
        """Return the true place of what is named."""
        try:
            root = self._folder.resolve()
            place = (root / path).resolve()
        except (OSError, ValueError, RuntimeError):  # a null character, a loop of links
            raise ToolError(f"{path!r} is no path.") from None
        if not place.is_relative_to(root):
            raise ToolError(f"{path!r} lies outside the folder that may be read.")
        if any(part.startswith(".") for part in place.relative_to(root).parts):
            raise ToolError(f"{path!r} may not be read: it is hidden, with a dot before its name.")
        return place


def _listing(folder: Path) -> str:
    names = sorted(
        f"{each.name}/" if each.is_dir() else each.name
        for each in folder.iterdir()
        if not each.name.startswith(".")
    )
    more = [f"({len(names) - _MOST_NAMES} more)"] if len(names) > _MOST_NAMES else []
    return "\n".join([*names[:_MOST_NAMES], *more]) or "(an empty folder)"


def _text(path: str, data: bytes) -> str:
    if len(data) > _MOST_BYTES:
        raise ToolError(f"{path!r} is too large: at most {_MOST_BYTES:,} bytes can be read.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ToolError(f"{path!r} is no text file.")
    return text


def _lines(text: str, first: int) -> str:
    lines = text.splitlines(keepends=True)
    if first > max(1, len(lines)):
        raise ToolError(f"There is no line {first}: the file has {len(lines)}.")
    shown, size, last = list[str](), 0, first - 1
    for line in lines[first - 1 : first - 1 + _MOST_LINES]:
        size += len(line.encode())
        if shown and size > _MOST_SHOWN:
            break
        shown.append(_within(line))
        last += 1
    if last < len(lines):
        hint = f"(lines {first} to {last} of {len(lines)}; first_line={last + 1} reads on)"
        shown.append(hint if not shown or shown[-1].endswith("\n") else f"\n{hint}")
    return "".join(shown) or "(an empty file)"


def _within(line: str) -> str:
    data = line.encode()
    if len(data) <= _MOST_SHOWN:
        return line
    kept = data[:_MOST_SHOWN].decode(errors="ignore")
    return f"{kept}\n(this line was cut: it has {len(data):,} bytes)\n"
