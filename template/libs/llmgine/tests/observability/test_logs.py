"""Standard `logging` as events: what reaches the handlers, and what mustn't."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from threading import Thread

import pytest
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import Event, LogEvent
from llmgine.contracts.events import LogLevel
from llmgine.errors import ConfigurationError
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.logs import bridged_logging
from llmgine.testing.fixtures import quiet_config


class Kept(ObservabilityEventHandler):
    """Keeps log events, and may log itself, or be on the terminal."""

    def __init__(self, *, talkative: bool = False, on_terminal: bool = False) -> None:
        self.events: list[LogEvent] = []
        self.on_terminal = on_terminal  # type: ignore[misc]
        self._talkative = talkative

    def observe(self, event: Event) -> None:
        if self._talkative:
            logging.getLogger("mine").error("observing %s", type(event).__name__)

    def handle(self, event: Event) -> None:
        if isinstance(event, LogEvent):
            self.events.append(event)
        if self._talkative:
            logging.getLogger("mine").error("handling %s", type(event).__name__)


@contextmanager
def _root(*handlers: logging.Handler, level: int = logging.WARNING) -> Generator[logging.Logger]:
    """The root logger as a program finds it, without the handlers of the tests' own."""
    root = logging.getLogger()
    before, before_level = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(level)
    try:
        yield root
    finally:
        root.handlers[:] = before
        root.setLevel(before_level)


def _kept(level: LogLevel, log: logging.Logger, *levels: int) -> list[LogEvent]:
    kept = Kept()
    client = ObservabilityClient([kept])
    with bridged_logging(client, level):
        for each in levels:
            log.log(each, "at %d", each)
    client.close(20)
    return kept.events


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_what_is_of_the_level_reaches_the_handlers(level: LogLevel) -> None:
    numbers = [1, 10, 19, 20, 30, 35, 40, 50, 60]
    events = _kept(level, logging.getLogger("shop"), *numbers)
    least = getattr(logging, level.upper())
    assert [event.text for event in events] == [f"at {each}" for each in numbers if each >= least]
    names = {10: "debug", 19: "debug", 20: "info", 30: "warning", 35: "warning", 40: "error"}
    expected = [names.get(each, "critical") for each in numbers if each >= least]
    assert [event.level for event in events] == expected


def test_a_loggers_own_level_holds() -> None:
    quiet = logging.getLogger("shop.quiet")
    quiet.setLevel(logging.ERROR)
    try:
        assert [event.text for event in _kept("debug", quiet, 20, 40)] == ["at 40"]
    finally:
        quiet.setLevel(logging.NOTSET)


def test_a_record_keeps_its_time_logger_attributes_and_exception() -> None:
    kept = Kept()
    client = ObservabilityClient([kept])
    before = time.time()
    with bridged_logging(client, "info"):
        try:
            int("no such city")
        except ValueError:
            extra = {"item": "tea", "count": 3, "rows": [1, {"a": 2}], "none": None}
            logging.getLogger("shop.orders").exception("%s is out", "tea", extra=extra)
        logging.getLogger().info("here", stack_info=True)
    client.close(20)
    failed, stacked = kept.events
    assert before <= failed.timestamp <= time.time()
    assert (failed.level, failed.text) == ("error", "tea is out")
    values = dict(failed.attributes)
    assert "in test_a_record_keeps" in str(values.pop("exception.stacktrace"))
    assert values == {
        "item": "tea",
        "count": 3,
        "rows": "[1, {'a': 2}]",
        "logger": "shop.orders",
        "exception.type": "ValueError",
        "exception.message": "invalid literal for int() with base 10: 'no such city'",
    }
    assert stacked.attributes["logger"] == "root"
    assert "test_logs.py" in str(stacked.attributes["code.stacktrace"])


async def test_a_record_belongs_to_the_session_and_the_span_it_is_made_in() -> None:
    kept = Kept()
    client = ObservabilityClient([kept])
    log = logging.getLogger("shop")
    async with MessageBus.isolated() as bus:
        with bridged_logging(client, "info"):
            async with bus.session("s-1"):
                with client.span("work"):
                    log.info("inside")
                    await asyncio.to_thread(log.info, "in a thread")
            outside = Thread(target=log.info, args=("outside",))
            outside.start()
            outside.join()
    await client.stop(20)
    inside, threaded, elsewhere = kept.events
    assert (inside.session_id, threaded.session_id, elsewhere.session_id) == ("s-1", "s-1", None)
    assert inside.parent_id == threaded.parent_id
    assert inside.parent_id is not None
    assert elsewhere.parent_id is None


def test_handlers_that_log_themselves_come_to_an_end() -> None:
    kept = Kept(talkative=True)
    client = ObservabilityClient([kept])
    with bridged_logging(client, "debug"):
        logging.getLogger("shop").info("once")
        for name in ("llmgine.observability", "opentelemetry.sdk", "opentelemetry"):
            logging.getLogger(name).error("of an exporter")
        thread = Thread(target=logging.getLogger("urllib3").error, args=("x",), name="OtelBatch")
        thread.start()
        thread.join()
        logging.getLogger("opentelemetry_shop").info("no exporter")
        client.close(20)
    assert [event.text for event in kept.events] == ["once", "no exporter"]


def test_all_is_as_before_afterwards() -> None:
    printing, other = logging.StreamHandler(sys.stderr), logging.StreamHandler(io.StringIO())
    kept = Kept(on_terminal=True)
    client = ObservabilityClient([kept])
    with _root(other, printing, level=logging.ERROR) as root:
        with bridged_logging(client, "info"):
            assert root.level == logging.INFO
            logging.getLogger("shop").info("quiet")
        assert root.handlers == [other, printing]
        assert root.level == logging.ERROR
        assert other.filters == printing.filters == []
        logging.getLogger("shop").error("later")
    client.close(20)
    assert [event.text for event in kept.events] == ["quiet"]
    assert other.stream.getvalue() == "later\n", "no more than before is written elsewhere"


@pytest.mark.parametrize("levels", [("info", "info"), ("info", "debug"), ("debug", "info")])
def test_two_applications_may_end_in_any_order(levels: tuple[LogLevel, LogLevel]) -> None:
    kept = Kept(), Kept()
    clients = [ObservabilityClient([each]) for each in kept]
    with _root() as root:
        with ExitStack() as later:
            with bridged_logging(clients[0], levels[0]):
                later.enter_context(bridged_logging(clients[1], levels[1]))
                root.info("both")
            root.info("one")
        assert root.level == logging.WARNING
    for client in clients:
        client.close(20)
    assert [[event.text for event in each.events] for each in kept] == [["both"], ["both", "one"]]


def test_a_level_that_was_set_meanwhile_stays() -> None:
    with _root() as root:
        with bridged_logging(ObservabilityClient(), "info"):
            root.setLevel(logging.CRITICAL)
        assert root.level == logging.CRITICAL


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("configured", [False, True])
def test_a_line_stands_on_the_terminal_once(
    capsys: pytest.CaptureFixture[str], configured: bool, on_terminal: bool
) -> None:
    kept = Kept(on_terminal=on_terminal)
    client = ObservabilityClient([kept])
    with _root(*([logging.StreamHandler()] if configured else [])):
        with bridged_logging(client, "info"):
            logging.getLogger("shop").warning("sold out")
            logging.getLogger("llmgine.observability").warning("the backend is down")
        client.close(20)
    printed = capsys.readouterr().err
    assert [event.text for event in kept.events] == ["sold out"]
    assert printed.count("sold out") == (0 if on_terminal else 1)
    assert printed.count("the backend is down") == 1


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("configured", [False, True])
def test_what_isnt_bridged_is_printed_as_without_a_bridge(
    capsys: pytest.CaptureFixture[str], configured: bool, on_terminal: bool
) -> None:
    kept = Kept(on_terminal=on_terminal)
    client = ObservabilityClient([kept])
    with _root(*([logging.StreamHandler()] if configured else [])):
        with bridged_logging(client, "error"):
            logging.getLogger("shop").warning("running low")
            logging.getLogger("shop").info("never shown")
        with bridged_logging(client, "debug"):
            logging.getLogger("opentelemetry.sdk").info("never shown")
            logging.getLogger("opentelemetry.sdk").warning("no exporter")
        client.close(20)
    printed = capsys.readouterr().err
    assert kept.events == []
    assert printed.splitlines() == ["running low", "no exporter"]


def test_what_isnt_bridged_is_printed_once_with_two_bridges(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(sys.stderr))
    clients = [ObservabilityClient([Kept()]) for _ in range(2)]
    with _root(), bridged_logging(clients[0], "info"), bridged_logging(clients[1], "info"):
        logging.getLogger("llmgine.observability").warning("the disk is full")
    for client in clients:
        client.close(20)
    assert capsys.readouterr().err.count("the disk is full") == 1


def test_a_logger_with_a_handler_of_its_own_needs_no_last_resort(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("shop.own")
    log.addHandler(own := logging.StreamHandler(sys.stderr))
    try:
        with _root(), bridged_logging(ObservabilityClient(), "info"):
            log.warning("once")
    finally:
        log.removeHandler(own)
    assert capsys.readouterr().err == "once\n"


def test_a_record_that_cant_be_written_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    kept = Kept(on_terminal=True)
    client = ObservabilityClient([kept])
    log = logging.getLogger("shop")
    with _root(), bridged_logging(client, "info"):
        log.info("%d items", "three")
        log.info("whole", extra={"broken": Broken()})
    client.close(20)
    assert [event.text for event in kept.events] == ["whole"]
    assert "Broken" in str(kept.events[0].attributes["broken"])
    assert "Logging error" in capsys.readouterr().err


async def test_a_setting_switches_it_on() -> None:
    log = logging.getLogger("shop")
    for setting, expected in (({"logging": "info"}, ["inside"]), ({}, [])):
        kept = Kept()
        app = ApplicationBootstrap(
            quiet_config(observability=setting), bus=MessageBus.isolated(), handlers=[kept]
        )
        log.error("before")
        async with app:
            log.info("inside")
            log.debug("too quiet")
        log.error("after")
        assert [event.text for event in kept.events] == expected


def test_a_level_that_there_isnt_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"observability\.logging.*'info'.*loud"):
        quiet_config(observability={"logging": "loud"})
