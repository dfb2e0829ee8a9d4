"""Who hears it: the message bus, its sessions, and what they report."""

from llmgine.bus.message_bus import BusSession, MessageBus
from llmgine.bus.report import BusStats, StopReport

__all__ = ["BusSession", "BusStats", "MessageBus", "StopReport"]
