"""What a model may call: a function a file, and the box that holds them."""

from assistant.tools.toolbox import toolbox

__all__ = ["toolbox"]
