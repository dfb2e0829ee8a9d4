"""The tools that a model may call: to add one, write a function and register it here."""

from __future__ import annotations

from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import Publisher
from llmgine.tools import ToolManager

from assistant.calculator import calculate
from assistant.clock import current_time
from assistant.files import FileReader
from assistant.settings import AssistantConfig

__all__ = ["toolbox"]


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
