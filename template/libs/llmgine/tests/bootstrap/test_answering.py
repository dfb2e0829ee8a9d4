"""Who answers: the provider that the settings name, with attempts, fallbacks and accounts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Self

import pytest
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bootstrap.parts import Room
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMRequest,
    SessionEndEvent,
)
from llmgine.errors import BudgetExceededError, ConfigurationError, OverloadedError, RateLimitError
from llmgine.providers.scripted import ScriptedProvider, ScriptStep
from llmgine.testing.fixtures import quiet_config
from llmgine.testing.recording import RecordingHandler

REQUEST = LLMRequest(messages=(ChatMessage.user("hi"),), model="large")
# Not every project has these files.
needs_layers = pytest.mark.skipif(
    find_spec("llmgine.providers.retrying") is None, reason="no provider asks over a network"
)


class Opened(ScriptedProvider):
    """A provider with a connection."""

    def __init__(self, script: list[ScriptStep], config: ApplicationConfig) -> None:
        super().__init__(script, name=config.provider.name.partition(":")[2])
        self.config = config
        self.is_open = False

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_open = False


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Opened]:
    """The providers `theirs:flaky`, `theirs:down` and `theirs:sound`, once they are made."""
    providers: dict[str, Opened] = {}
    scripts: dict[str, Callable[[], list[ScriptStep]]] = {
        "flaky": lambda: [RateLimitError("busy", retry_after=0.0), "Flaky."],
        "down": lambda: [OverloadedError("down")] * 9,
        "sound": lambda: ["Sound."] * 9,
    }
    module = ModuleType("theirs")

    def factory(name: str) -> Callable[[ApplicationConfig], Opened]:
        def make(config: ApplicationConfig) -> Opened:
            providers[name] = Opened(scripts[name](), config)
            return providers[name]

        return make

    vars(module).update({name: factory(name) for name in scripts})
    monkeypatch.setitem(sys.modules, "theirs", module)
    return providers


def application(**settings: object) -> ApplicationBootstrap:
    config = quiet_config(retry={"delay": 0, "attempts": 2} | _table(settings, "retry"), **settings)
    return ApplicationBootstrap(config, bus=MessageBus.isolated(), handlers=[RecordingHandler()])


def _table(settings: dict[str, object], name: str) -> dict[str, object]:
    table = settings.pop(name, {})
    assert isinstance(table, dict)
    return table  # pyright: ignore[reportUnknownVariableType]


def _results(app: ApplicationBootstrap) -> list[tuple[str, str]]:
    """Return who was asked, and what came of it."""
    (handler,) = app.observability.handlers
    assert isinstance(handler, RecordingHandler)
    return [
        (event.provider, type(event.error or event.response).__name__)
        for event in handler.of(LLMCallResultEvent)
    ]


# -- Attempts


@needs_layers
async def test_attempts_are_made_where_the_settings_ask_for_them(made: dict[str, Opened]) -> None:
    async with application(provider={"name": "theirs:flaky"}, retry={"enabled": "always"}) as app:
        assert (await app.provider.complete(REQUEST)).text == "Flaky."
        assert _results(app) == [("flaky", "RateLimitError"), ("flaky", "LLMResponse")]
        assert app.usage.total.calls == 2
    assert not made["flaky"].is_open


@pytest.mark.parametrize("enabled", ["auto", "never"])
async def test_a_provider_of_one_s_own_is_asked_once(made: dict[str, Opened], enabled: str) -> None:
    async with application(provider={"name": "theirs:flaky"}, retry={"enabled": enabled}) as app:
        assert made["flaky"].is_open
        with pytest.raises(RateLimitError):
            await app.provider.complete(REQUEST)


@needs_layers
@pytest.mark.parametrize(("enabled", "calls"), [("auto", 2), ("never", 1), ("always", 2)])
async def test_providers_of_a_network_are_asked_again_by_default(
    monkeypatch: pytest.MonkeyPatch, enabled: str, calls: int
) -> None:
    provider = ScriptedProvider([RateLimitError("busy")] * 2)

    def build(room: Room, name: str, *arguments: object, **options: object) -> object:
        return provider if name == "openai" else original(room, name, *arguments, **options)

    original = Room.build
    monkeypatch.setattr(Room, "build", build)
    async with application(provider={"name": "openai"}, retry={"enabled": enabled}) as app:
        with pytest.raises(RateLimitError):
            await app.provider.complete(REQUEST)
    assert len(provider.requests) == calls


async def test_a_provider_that_is_given_is_used_as_it_is() -> None:
    provider = ScriptedProvider([OverloadedError("down")])
    config = quiet_config(
        provider={"fallback": ["scripted"]}, retry={"enabled": "always", "delay": 0}
    )
    async with ApplicationBootstrap(config, bus=MessageBus.isolated(), provider=provider) as app:
        with pytest.raises(OverloadedError):
            await app.provider.complete(REQUEST)
    assert len(provider.requests) == 1


# -- Fallbacks


@needs_layers
async def test_providers_to_fall_back_on_have_their_own_settings(made: dict[str, Opened]) -> None:
    provider = {
        "name": "theirs:down",
        "model": "large",
        "options": {"tone": "first"},
        "fallback": ["theirs:sound", "scripted"],
        "fallback_options": {"theirs:sound": {"model": "small", "tone": "second"}},
    }
    async with application(provider=provider, retry={"enabled": "always"}) as app:
        response = await app.provider.complete(REQUEST)
        assert (response.text, response.provider) == ("Sound.", "sound")
        assert made["down"].is_open
        assert made["sound"].is_open
        assert _results(app) == [
            ("down", "OverloadedError"),
            ("down", "OverloadedError"),
            ("sound", "LLMResponse"),
        ]
        assert app.provider.name == "down"
    assert [request.model for request in made["sound"].requests] == ["small"]
    assert made["sound"].config.provider.options == {"tone": "second"}
    assert made["sound"].config.provider.model == "small"
    assert not made["down"].is_open
    assert not made["sound"].is_open


@needs_layers
@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("nowhere:made", {}, "provider.fallback, 'nowhere:made': provider.name: .* can't be"),
        ("scrpted", {}, r"provider.fallback, 'scrpted': provider.name: .* did you mean 'scripted'"),
        ("scripted", {"tone": "x"}, "provider.fallback, 'scripted': provider.options.tone: the"),
    ],
)
async def test_what_is_wrong_with_a_fallback_is_said_at_the_start(
    name: str, options: dict[str, str], text: str
) -> None:
    provider = {
        "name": "theirs:sound",
        "fallback": [name],
        "fallback_options": {name: options},
    }
    with pytest.raises(ConfigurationError, match=text) as caught:
        await application(provider=provider).start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"retry": {"enabled": "always"}}, "retry.enabled: 'retrying' is not part"),
        ({"provider": {"fallback": ["scripted"]}}, "provider.fallback: 'fallback' is not part"),
    ],
)
async def test_a_layer_that_was_left_out_names_the_answer(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], text: str
) -> None:
    def present(room: Room) -> set[str]:
        return {"scripted", "memory", "manager"}

    monkeypatch.setattr(Room, "_present", present)
    with pytest.raises(ConfigurationError, match=text):
        await application(**settings).start()


def test_fallbacks_may_stand_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGINE_PROVIDER__FALLBACK", "anthropic, theirs:sound")
    monkeypatch.setenv("LLMGINE_PROVIDER__FALLBACK_OPTIONS__ANTHROPIC__MODEL", "small")
    settings = ApplicationConfig(settings_file=None).provider
    assert settings.fallback == ["anthropic", "theirs:sound"]
    assert settings.fallback_options == {"anthropic": {"model": "small"}}


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        ({"fallback": ["a", "a"]}, "provider.fallback: expected each name once"),
        ({"fallback_options": {"b": {}}}, "provider.fallback_options: 'b' is not among"),
        ({"fallback": "a"}, "provider.fallback: expected a list, found 'a'"),
    ],
)
def test_fallbacks_that_can_t_be_meant_are_refused(provider: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        quiet_config(provider=provider)


def test_the_options_of_a_fallback_stay_hidden() -> None:
    given: dict[str, object] = {"fallback": ["b"], "fallback_options": {"b": {"tone": 17}}}
    with pytest.raises(ConfigurationError) as caught:
        quiet_config(provider=given)
    assert "17" not in str(caught.value)
    given["fallback_options"] = {"b": {"tone": "seventeen"}}
    assert "seventeen" not in repr(quiet_config(provider=given))


# -- Accounts and budgets


async def test_a_session_s_account_is_there_until_the_session_has_ended() -> None:
    app = application(budget={"session_tokens": 1})
    seen: list[int] = []

    def setup(event: SessionEndEvent) -> None:
        seen.append(app.usage.session(event.session_id or "").calls)

    async with app:
        app.bus.register_event_handler(SessionEndEvent, setup)
        for _ in range(2):
            async with BusSession("mine", bus=app.bus):
                await app.provider.complete(REQUEST)
                assert app.usage.session("mine").calls == 1
                with pytest.raises(BudgetExceededError, match="session_tokens"):
                    await app.provider.complete(REQUEST)
            assert app.usage.session("mine").calls == 0
        assert seen == [1, 1]
        assert app.usage.total.calls == 2


@needs_layers
@pytest.mark.usefixtures("made")
async def test_beyond_the_budget_nobody_else_is_asked() -> None:
    provider = {"name": "theirs:sound", "fallback": ["theirs:down"]}
    retry = {"enabled": "always"}
    async with application(provider=provider, retry=retry, budget={"process_tokens": 0}) as app:
        with pytest.raises(BudgetExceededError):
            await app.provider.complete(REQUEST)
        (handler,) = app.observability.handlers
        assert isinstance(handler, RecordingHandler)
        assert handler.of(LLMCallStartedEvent) == ()


async def test_accounts_go_on_after_a_restart_of_the_application() -> None:
    app = application()
    for calls in (1, 2):
        async with app:
            await app.provider.complete(REQUEST)
            assert app.usage.total.calls == calls
    assert app.usage.total.tokens > 0


def test_prices_are_read_from_settings() -> None:
    config = quiet_config(budget={"prices": {"gpt-5.1": {"input": 1.25, "output": "10"}}})
    price = config.budget.prices["gpt-5.1"]
    assert (str(price.input), str(price.output), price.cached) == ("1.25", "10", None)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"imput": 1, "output": 1}, r"budget.prices.m.input: expected a value"),
        ({"input": 1, "output": 1, "cachd": 1}, r"budget.prices.m.cachd: expected another name"),
        ({"input": -1, "output": 1}, r"budget.prices.m.input: expected a number from 0 up"),
        ({"input": "much", "output": 1}, r"budget.prices.m.input: expected a number, found 'much'"),
    ],
)
def test_a_wrong_price_is_one_line(table: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        quiet_config(budget={"prices": {"m": table}})
