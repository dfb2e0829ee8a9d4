"""Who answers: one file for each provider.

Optional providers are imported by name from their own file.
"""

from llmgine.providers.observed import ObservedProvider
from llmgine.providers.scripted import ScriptedProvider

__all__ = ["ObservedProvider", "ScriptedProvider"]
