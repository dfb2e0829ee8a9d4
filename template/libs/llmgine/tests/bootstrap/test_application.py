from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import BusSession, MessageBus
from llmgine.context.memory import InMemoryContextStore
from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    Command,
    Event,
    LLMCallResultEvent,
    LLMChunkEvent,
    LLMProvider,
    LLMRequest,
    Message,
    Publisher,
    ResolveToolApproval,
    SessionStartEvent,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolDefinition,
    ToolExecuteResultEvent,
    ToolResult,
)
from llmgine.contracts.protocols import CallNext
from llmgine.errors import (
    BusNotRunningError,
    CommandTimeoutError,
    ConfigurationError,
    NoHandlerError,
    WouldDeadlockError,
)
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.console import ConsoleEventHandler
from llmgine.observability.jsonl import FileEventHandler
from llmgine.providers.observed import ObservedProvider
from llmgine.providers.scripted import ScriptedProvider
from llmgine.settings import BusSettings
from llmgine.testing.fixtures import quiet_config
from llmgine.tools import ToolManager


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    pass


@dataclass(frozen=True, kw_only=True)
class Tick(Event):
    pass


async def answer(command: Ask) -> str:
    return "answered"


class Keeper(ObservabilityEventHandler):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.log: list[str] = []

    def start(self) -> None:
        self.log.append("start")

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def stop(self, timeout: float) -> None:
        self.log.append("stop")


class Tools:
    def get_tools(self, *, strict: bool = False) -> list[ToolDefinition]:
        return []

    async def execute_tool_call(self, call: ToolCall) -> ToolResult:
        return ToolResult(tool_call_id=call.id, name=call.name)


class Opened(InMemoryContextStore):
    """A store with a beginning and an end."""

    def __init__(self, log: list[str], hang: bool = False) -> None:
        super().__init__()
        self.log = log
        self.hang = hang

    async def __aenter__(self) -> Self:
        self.log.append("entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.hang:
            await asyncio.Event().wait()
        self.log.append("left")


def _three(config: ApplicationConfig) -> int:
    return 3


REQUEST = LLMRequest(messages=(ChatMessage.user("Hi"),))


def isolated(
    config: ApplicationConfig | None = None,
    *,
    setup: Callable[[ApplicationBootstrap], None] | None = None,
) -> ApplicationBootstrap:
    return ApplicationBootstrap(config or quiet_config(), bus=MessageBus.isolated(), setup=setup)


# -- The bus


async def test_the_process_s_bus_is_used_and_let_go() -> None:
    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_command_handler(Ask, answer)

    app = ApplicationBootstrap(quiet_config(), setup=setup)
    assert app.bus is MessageBus()
    async with app:
        assert await MessageBus().execute(Ask()) == "answered"
    assert not MessageBus().stats().running


async def test_a_second_application_in_the_same_process_works() -> None:
    heard: list[Event] = []
    through: list[Message] = []

    async def middleware(message: Message, call_next: CallNext) -> object:
        through.append(message)
        return await call_next(message)

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.add_middleware(middleware)
        app.bus.add_observer(heard.append)
        app.bus.register_command_handler(Ask, answer)
        app.bus.register_event_handler(Tick, heard.append)

    for _ in range(2):
        heard.clear()
        async with ApplicationBootstrap(quiet_config(), setup=setup) as app:
            assert await app.bus.execute(Ask()) == "answered"
            await app.bus.publish_and_wait(Tick())
        assert [type(event) for event in heard].count(Tick) == 2
    heard.clear()
    through.clear()
    async with MessageBus() as bus:
        await bus.publish_and_wait(Tick())
    assert (heard, through) == ([], [])


async def test_an_application_starts_again() -> None:
    app = isolated(setup=_register)
    for _ in range(2):
        async with app:
            assert await app.bus.execute(Ask()) == "answered"


def _register(app: ApplicationBootstrap) -> None:
    app.bus.register_command_handler(Ask, answer)


async def test_a_running_bus_is_used_and_left_running() -> None:
    async with MessageBus.isolated() as bus:
        async with ApplicationBootstrap(quiet_config(), bus=bus, setup=_register) as app:
            assert app.bus is bus
            assert await bus.execute(Ask()) == "answered"
        assert bus.stats().running
        with pytest.raises(NoHandlerError):
            await bus.execute(Ask())


async def test_a_given_bus_keeps_its_settings_unless_ours_are_set() -> None:
    async def late(command: Ask) -> str:
        await asyncio.sleep(0.1)
        return "late"

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_command_handler(Ask, late)

    own = BusSettings(command_timeout=0.01)
    bus = MessageBus.isolated(own)
    async with ApplicationBootstrap(quiet_config(), bus=bus, setup=setup):
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask())
    config = quiet_config(bus={"command_timeout": 5})
    async with ApplicationBootstrap(config, bus=bus, setup=setup):
        assert await bus.execute(Ask()) == "late"
    async with bus:
        with pytest.raises(ConfigurationError, match="bus="):
            await ApplicationBootstrap(config, bus=bus).start()
        assert bus.stats().running


async def test_a_bus_that_started_on_a_loop_long_closed_is_started_anew() -> None:
    bus = MessageBus.isolated()
    await asyncio.to_thread(asyncio.run, bus.start())
    async with ApplicationBootstrap(quiet_config(), bus=bus, setup=_register):
        assert await bus.execute(Ask()) == "answered"
    assert not bus.stats().running


async def test_the_bus_may_come_from_a_factory() -> None:
    made = MessageBus.isolated()
    async with ApplicationBootstrap(quiet_config(), bus=lambda _: made) as app:
        assert app.bus is made


# -- Parts, by argument, by factory, by settings


async def test_the_defaults(tmp_path: Path) -> None:
    config = ApplicationConfig(settings_file=None, file={"path": tmp_path / "e.jsonl"})
    async with ApplicationBootstrap(config, bus=MessageBus.isolated()) as app:
        assert [type(each) for each in app.observability.handlers] == [
            ConsoleEventHandler,
            FileEventHandler,
        ]
        assert isinstance(app.context, InMemoryContextStore)
        assert isinstance(app.tools, ToolManager)
        assert app.provider.name == "scripted"
    assert "SessionStart" not in (tmp_path / "e.jsonl").read_text()


@pytest.mark.parametrize("name", ["console", "file"])
async def test_handlers_are_switched_one_by_one(name: str, tmp_path: Path) -> None:
    quiet = {"console": {"enabled": False}, "file": {"enabled": False, "path": tmp_path / "e"}}
    quiet[name]["enabled"] = True
    app = isolated(ApplicationConfig(settings_file=None, **quiet))
    async with app:
        assert len(app.observability.handlers) == 1


async def test_given_parts_are_used() -> None:
    provider, store, tools = ScriptedProvider(["one"]), InMemoryContextStore(), Tools()
    async with ApplicationBootstrap(
        quiet_config(), bus=MessageBus.isolated(), provider=provider, context=store, tools=tools
    ) as app:
        assert app.context is store
        assert app.tools is tools
        assert (await app.provider.complete(REQUEST)).text == "one"


async def test_factories_get_the_settings_and_the_bus_if_they_ask() -> None:
    config = quiet_config(provider={"model": "m"})
    seen: list[object] = []

    def provider(given: ApplicationConfig) -> ScriptedProvider:
        seen.append(given)
        return ScriptedProvider(name=given.provider.model)

    def store(given: ApplicationConfig, publisher: Publisher) -> InMemoryContextStore:
        seen.append(publisher)
        return InMemoryContextStore(publisher)

    keeper = Keeper()
    client = ObservabilityClient()
    async with ApplicationBootstrap(
        config,
        bus=MessageBus.isolated(),
        provider=provider,
        context=store,
        tools=lambda _: Tools(),
        observability=lambda _: client,
        handlers=[lambda _: keeper],
    ) as app:
        assert seen == [app.bus, config]
        assert app.provider.name == "m"
        assert app.observability is client
        assert isinstance(app.tools, Tools)
    assert keeper.log == ["start", "stop"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of somebody's own."""
    module = ModuleType("elsewhere")
    monkeypatch.setitem(__import__("sys").modules, "elsewhere", module)
    return module


async def test_settings_name_anybody_s_factory(elsewhere: ModuleType) -> None:
    def provider(config: ApplicationConfig) -> LLMProvider:
        return ScriptedProvider(name=config.provider.options["called"])

    def store(config: ApplicationConfig, *, publisher: Publisher) -> InMemoryContextStore:
        return InMemoryContextStore(publisher)

    vars(elsewhere).update(provider=provider, store=store)
    config = quiet_config(
        provider={"name": "elsewhere:provider", "options": {"called": "theirs"}},
        context={"store": "elsewhere:store"},
    )
    keeper = Keeper()
    bus = MessageBus.isolated()
    async with ApplicationBootstrap(config, bus=bus, handlers=[keeper]) as app:
        assert app.provider.name == "theirs"
        await app.context.add_message("s", ChatMessage.user("Hi"))
    assert ChatHistoryUpdatedEvent in map(type, keeper.events)


async def test_settings_name_anybody_s_executor(elsewhere: ModuleType) -> None:
    def tools(config: ApplicationConfig, *, publisher: Publisher) -> ToolManager:
        return ToolManager(config.tools.executor, publisher=publisher)

    vars(elsewhere).update(tools=tools)
    config = quiet_config(tools={"executor": "elsewhere:tools"})
    async with ApplicationBootstrap(config, bus=MessageBus.isolated()) as app:
        assert isinstance(app.tools, ToolManager)
        assert app.tools.session_id == "elsewhere:tools"


async def test_tools_are_observed_limited_and_answered_for_over_the_bus() -> None:
    keeper = Keeper()
    config = quiet_config(tools={"max_argument_bytes": 20})

    async def answer(event: ToolApprovalRequestedEvent) -> None:
        assert not await app.bus.execute(ResolveToolApproval(call_id="other", approved=True))
        assert await app.bus.execute(ResolveToolApproval(call_id=event.call.id, approved=True))

    def double(number: int) -> int:
        return 2 * number

    def setup(app: ApplicationBootstrap) -> None:
        assert isinstance(app.tools, ToolManager)
        app.tools.register_tool(double, needs_approval=True)
        app.bus.register_event_handler(ToolApprovalRequestedEvent, answer)

    bus = MessageBus.isolated()
    async with (
        ApplicationBootstrap(config, bus=bus, handlers=[keeper], setup=setup) as app,
        BusSession("s", bus=bus),
    ):
        call = ToolCall(id="c", name="double", arguments='{"number": 4}')
        assert (await app.tools.execute_tool_call(call)).content == "8"
        call = ToolCall(id="c", name="double", arguments='{"number": 4000000000000}')
        result = await app.tools.execute_tool_call(call)
        assert result.error_code == "arguments_too_large"
    results = [each for each in keeper.events if isinstance(each, ToolExecuteResultEvent)]
    assert [each.session_id for each in results] == ["s", "s"]


async def test_an_executor_without_approvals_has_no_handler_for_answers() -> None:
    bus = MessageBus.isolated()
    async with ApplicationBootstrap(quiet_config(), bus=bus, tools=Tools()):
        with pytest.raises(NoHandlerError):
            await bus.execute(ResolveToolApproval(call_id="c", approved=True))


async def refusal(config: ApplicationConfig, **parts: object) -> str:
    bus = MessageBus.isolated()
    with pytest.raises(ConfigurationError) as caught:
        await ApplicationBootstrap(config, bus=bus, **parts).start()  # pyright: ignore[reportArgumentType]
    assert not bus.stats().running
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "skripted",
            "or package.module:factory, found 'skripted'; did you mean 'scripted'?",
        ),
        ("observed", "'scripted' or package.module:factory, found 'observed'"),
        ("../evil", "or package.module:factory, found '../evil'"),
        ("", "or package.module:factory, found ''"),
        (":x", "expected package.module:factory, found ':x'"),
        ("a b:x", "expected package.module:factory, found 'a b:x'"),
        ("no_such_module:x", "'no_such_module:x' can't be imported: No module named"),
        ("elsewhere:no", "expected a function 'no' in elsewhere, found none"),
        ("elsewhere:number", "expected a function 'number' in elsewhere, found none"),
        ("os:getcwd", "provider.name: expected a factory that takes the ApplicationConfig, found"),
        ("elsewhere:wrong", "expected a LLMProvider, found an object of type int"),
    ],
)
async def test_a_wrong_name_is_one_line(elsewhere: ModuleType, name: str, text: str) -> None:
    vars(elsewhere).update(number=3, wrong=_three)
    line = await refusal(quiet_config(provider={"name": name}))
    assert line.startswith("provider")
    assert text in line
    assert "\n" not in line


async def test_a_wrong_store_is_one_line() -> None:
    line = await refusal(quiet_config(context={"store": "postgres"}))
    assert line.startswith("context.store: expected 'memory'")
    assert line.endswith("or package.module:factory, found 'postgres'")


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"provider": 3}, "provider: expected a part or a factory, found an object of type int"),
        ({"handlers": [Keeper]}, "handlers: expected a factory that takes the ApplicationConfig"),
        ({"context": int}, "context: expected a factory that takes the ApplicationConfig, found"),
        ({"tools": _three}, "tools: expected a ToolExecutor, found an object of type int"),
        ({"context": ScriptedProvider([])}, "context: expected a part or a factory"),
        ({"handlers": [_three]}, "handlers: expected a ObservabilityEventHandler"),
        ({"observability": _three}, "observability: expected a ObservabilityClient"),
    ],
)
async def test_a_part_that_doesn_t_fit_is_refused(part: dict[str, object], text: str) -> None:
    assert (await refusal(quiet_config(), **part)).startswith(text)


@pytest.mark.parametrize("given", [3, _three])
def test_a_bus_that_doesn_t_fit_is_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^bus: expected .* found an object of type int$"):
        ApplicationBootstrap(quiet_config(), bus=given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("path", ["", "."])
async def test_a_folder_is_no_event_file(path: str) -> None:
    line = await refusal(quiet_config(file={"enabled": True, "path": path}))
    assert line == f"file.path: expected a file, found the folder {Path.cwd()}"


def test_a_setup_that_would_have_to_be_awaited_is_refused() -> None:
    async def setup(app: ApplicationBootstrap) -> None: ...

    with pytest.raises(ConfigurationError, match="setup: expected a plain function"):
        ApplicationBootstrap(quiet_config(), setup=setup)  # pyright: ignore[reportArgumentType]


# -- Observability


async def test_every_handler_sees_all_events_but_the_unobserved() -> None:
    keeper = Keeper()
    async with (
        ApplicationBootstrap(
            quiet_config(),
            bus=MessageBus.isolated(),
            handlers=[keeper],
            provider=ScriptedProvider(["one two"]),
        ) as app,
        BusSession("s", bus=app.bus),
    ):
        async for _ in app.provider.stream(REQUEST):
            pass
    kinds = [type(event) for event in keeper.events]
    assert kinds[0] is SessionStartEvent
    assert LLMCallResultEvent in kinds
    assert LLMChunkEvent not in kinds


async def test_a_given_client_is_not_stopped_but_handlers_are() -> None:
    given, own = Keeper(), Keeper()
    client = ObservabilityClient([given])
    config = ApplicationConfig(settings_file=None)
    async with ApplicationBootstrap(
        config, bus=MessageBus.isolated(), observability=client, handlers=[own]
    ) as app:
        assert app.observability.handlers == (given, own)
    assert (given.log, own.log) == (["start"], ["start", "stop"])
    client.log("info", "still there")
    await client.stop()
    assert len(given.events) == len(own.events) + 1


async def test_observability_stops_last_and_hears_of_the_end() -> None:
    keeper = Keeper()

    async def hang(event: Tick) -> None:
        await asyncio.Event().wait()

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_event_handler(Tick, hang)

    config = quiet_config(bus={"drain_timeout": 0.05})
    app = ApplicationBootstrap(config, bus=MessageBus.isolated(), handlers=[keeper], setup=setup)
    async with app:
        await app.bus.publish(Tick())
    assert [type(event).__name__ for event in keeper.events] == [
        "Tick",
        "EventHandlerFailedEvent",
    ]
    assert keeper.log == ["start", "stop"]


async def test_what_was_dropped_is_shown_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Keeper):
        def handle(self, event: Event) -> None:
            raise OSError("disk full")

    for lasting in (None, ObservabilityClient()):
        caplog.clear()
        async with ApplicationBootstrap(
            quiet_config(), bus=MessageBus.isolated(), observability=lasting, handlers=[Failing()]
        ) as app:
            await app.bus.publish(Tick())
        assert "1 dropped (0 overflowed, 1 failed, 0 stopped)" in caplog.text


async def test_a_bus_that_had_to_cut_work_off_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def hang(event: Tick) -> None:
        await asyncio.Event().wait()

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_event_handler(Tick, hang)

    async with isolated(quiet_config(bus={"drain_timeout": 0.05}), setup=setup) as app:
        await app.bus.publish(Tick())
    assert "the bus stopped with work left" in caplog.text


async def test_an_observed_provider_is_not_wrapped_again() -> None:
    bus = MessageBus.isolated()
    observed = ObservedProvider(ScriptedProvider([]), bus)
    async with ApplicationBootstrap(quiet_config(), bus=bus, provider=observed) as app:
        assert app.provider is observed


# -- Beginning and end


async def test_a_part_made_here_is_entered_and_left_and_a_given_one_is_not() -> None:
    log: list[str] = []
    bus = MessageBus.isolated()
    async with ApplicationBootstrap(quiet_config(), bus=bus, context=lambda _: Opened(log)):
        assert log == ["entered"]
    assert log == ["entered", "left"]
    async with ApplicationBootstrap(quiet_config(), bus=bus, context=Opened(log)):
        pass
    assert log == ["entered", "left"]


async def test_a_part_that_hangs_doesn_t_keep_the_application_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = quiet_config(observability={"stop_timeout": 0.05})
    keeper = Keeper()
    async with ApplicationBootstrap(
        config,
        bus=MessageBus.isolated(),
        context=lambda _: Opened([], hang=True),
        handlers=[keeper],
    ):
        pass
    assert keeper.log == ["start", "stop"]
    assert "context was not closed in 0.05 s" in caplog.text


@pytest.mark.parametrize("where", ["provider", "setup"])
async def test_a_start_that_fails_half_way_is_unwound(where: str) -> None:
    log: list[str] = []
    keeper = Keeper()
    bus = MessageBus.isolated()

    def fail(_: object) -> None:
        if where == "setup":
            app.bus.register_command_handler(Ask, answer)
        raise ZeroDivisionError

    app = ApplicationBootstrap(
        quiet_config(),
        bus=bus,
        context=lambda _: Opened(log),
        handlers=[keeper],
        provider=fail if where == "provider" else None,  # pyright: ignore[reportArgumentType]
        setup=fail if where == "setup" else None,
    )
    with pytest.raises(ZeroDivisionError):
        await app.start()
    assert log == ["entered", "left"]
    assert keeper.log == ["start", "stop"]
    assert not bus.stats().running
    with pytest.raises(BusNotRunningError, match="isn't started"):
        _ = app.provider
    async with bus:
        with pytest.raises(NoHandlerError):
            await bus.execute(Ask())


async def test_starting_and_stopping_twice_is_fine() -> None:
    app = isolated()
    await app.stop()
    await app.start()
    client = app.observability
    await app.start()
    assert app.observability is client
    await app.stop()
    await app.stop()


async def test_an_error_in_the_block_goes_through_after_the_stop() -> None:
    app = isolated()
    with pytest.raises(ZeroDivisionError):
        async with app:
            raise ZeroDivisionError
    assert not app.bus.stats().running


async def test_a_handler_can_t_stop_the_application_but_can_ask_for_it() -> None:
    async def stop(command: Ask) -> str:
        with pytest.raises(WouldDeadlockError):
            await app.stop()
        app.request_stop()
        return "asked"

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_command_handler(Ask, stop)

    app = isolated(setup=setup)
    app.request_stop()
    async with app:
        waiting = asyncio.create_task(app.run_until_signal())
        assert await app.bus.execute(Ask()) == "asked"
        assert await waiting is None
        assert app.provider.name == "scripted"


async def test_waiting_for_a_signal_needs_a_running_application() -> None:
    with pytest.raises(BusNotRunningError):
        await isolated().run_until_signal()
