"""The tools that a model may call: to add one, write a function and register it here."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import Publisher
from llmgine.errors import ToolError
from llmgine.tools import ToolManager

from assistant.calculator import calculate
from assistant.files import AssistantConfig, FileReader

__all__ = ["current_time", "toolbox"]


def toolbox(config: ApplicationConfig, *, publisher: Publisher) -> ToolManager:
    """Return the application's tools; give this to bootstrap as `tools`.

    A tool is a function with annotations and a docstring, from which the model learns what it
    does and takes. What it does to the world waits for a person with `needs_approval=True`.
    """
    folder = config.assistant.folder if isinstance(config, AssistantConfig) else config.folder
    tools = ToolManager(publisher=publisher, settings=config.tools)
    tools.register_tool(current_time)
    tools.register_tool(calculate)
    tools.register_tool(FileReader(folder).read_file, needs_approval=True)
    return tools


_SUGGESTIONS = 3


def current_time(zone: str = "") -> str:
    """Tell the weekday, the date and the time of now.

    Args:
        zone: an IANA time zone such as "Europe/Berlin"; by default this computer's own.
    """
    # This computer's own zone and UTC need no database, without which some containers come.
    name = zone.strip()
    now = datetime.now(UTC).astimezone(_zone(name) if name else None)
    return f"{now:%A}, {now.isoformat(sep=' ', timespec='seconds')} ({name or now.tzname()})"


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ToolError(f"There is no time zone {name!r}: {_hint(name)}") from None


def _hint(name: str) -> str:
    known = sorted(available_timezones())
    if not known:
        return "this computer knows UTC alone, for want of the package `tzdata`."
    wanted = name.replace(" ", "_").casefold()
    close = [each for each in known if wanted in each.casefold()] or get_close_matches(name, known)
    return f"did you mean {' or '.join(close[:_SUGGESTIONS])}?" if close else "use an IANA name."
