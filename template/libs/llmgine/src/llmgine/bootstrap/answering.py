"""Who answers: the provider that the settings name, and the layers around it.

From the outside in: other providers to fall back on, further attempts, and for each attempt the
events and the accounts.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from llmgine.bootstrap.config import ApplicationConfig
from llmgine.bootstrap.parts import FALLBACK, PROVIDERS, RETRY
from llmgine.bootstrap.wiring import Maker, fitting
from llmgine.contracts import LLMProvider, Publisher
from llmgine.errors import ConfigurationError
from llmgine.providers.observed import ObservedProvider
from llmgine.providers.usage import UsageLedger

__all__ = ["Answering"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answering:
    """Makes an application's provider.

    Attributes:
        config: the settings.
        publisher: who is told of model calls.
        ledger: where they are accounted for.
        stack: ends what is made.
    """

    config: ApplicationConfig
    publisher: Publisher
    ledger: UsageLedger
    stack: AsyncExitStack

    async def provider(self, given: object) -> LLMProvider:
        """Return the provider: the one that was given, or the one that the settings name.

        One that is given is observed, and is nobody's to retry or to replace.
        """
        if given is not None:
            return self._observed(
                await self._maker(self.config).part("provider", LLMProvider, given)
            )
        first = await self._named(self.config)
        settings = self.config.provider
        if not settings.fallback:
            return first
        others = [await self._alternative(name) for name in settings.fallback]
        return fitting("provider.fallback", LLMProvider, FALLBACK.build("fallback", first, others))

    async def _alternative(self, name: str) -> tuple[LLMProvider, str]:
        """Make a provider to fall back on; return it with its model."""
        own = self.config.provider.alternative(name)
        try:
            provider = await self._named(self.config.model_copy(update={"provider": own}))
        except ConfigurationError as error:
            # It speaks of the settings that the provider would have as the first one.
            raise ConfigurationError(f"provider.fallback, {name!r}: {error}") from error
        return provider, own.model

    async def _named(self, config: ApplicationConfig) -> LLMProvider:
        maker = self._maker(config)
        made = await maker.part("provider", LLMProvider, None, maker.provider)
        observed = self._observed(made)
        retry = config.retry
        over_network = config.provider.name in PROVIDERS.remote
        if retry.enabled == "always" or (retry.enabled == "auto" and over_network):
            layer = RETRY.build("retrying", observed, retry)
            return fitting("retry.enabled", LLMProvider, layer)
        return observed

    def _observed(self, provider: LLMProvider) -> LLMProvider:
        if isinstance(provider, ObservedProvider):
            return provider
        return ObservedProvider(provider, self.publisher, self.ledger)

    def _maker(self, config: ApplicationConfig) -> Maker:
        return Maker(config, self.publisher, self.stack)
