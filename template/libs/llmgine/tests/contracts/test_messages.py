"""What commands and events are made of, and what the contracts stand on."""

from __future__ import annotations

import ast
import os
import sys
import threading
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest
from llmgine import contracts
from llmgine.contracts import (
    ChatMessage,
    Command,
    Event,
    LLMChunkEvent,
    LLMRequest,
    LLMResponse,
    MediaPart,
    Publisher,
    ToolResult,
    Usage,
    new_id,
    tell,
)
from llmgine.contracts.ambient import AMBIENT, Ambient
from llmgine.contracts.chat import TextPart
from llmgine.contracts.messages import ErrorInfo
from llmgine.contracts.protocols import ProviderCapabilities, capabilities_of
from llmgine.errors import QueueFullError, provider_error


@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str = "Ada"


@dataclass(frozen=True, kw_only=True)
class Greeted(Event):
    name: str = "Ada"


@dataclass(frozen=True, kw_only=True, slots=True)
class GreetedLoudly(Greeted):
    volume: int = 1


@pytest.mark.parametrize("kind", [Greet, Greeted, GreetedLoudly])
def test_messages_are_equal_only_if_they_are_one(kind: type[Greet | Greeted]) -> None:
    one = kind(id="1", timestamp=0.0)
    other = kind(id="1", timestamp=0.0)
    assert one == one  # noqa: PLR0124 - identity is the point
    assert one != other
    assert len({one, other, one}) == 2


def test_messages_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Greet().name = "Bob"  # type: ignore[misc]


def test_session_and_parent_are_the_ambient_ones() -> None:
    assert (Greeted().session_id, Greeted().parent_id) == (None, None)
    here = Ambient()
    here.session_id, here.parent_id = "here", "above"
    token = AMBIENT.set(here)
    try:
        assert (Greeted().session_id, Greeted().parent_id) == ("here", "above")
        assert Greeted(session_id="there").session_id == "there"
        assert Greeted(session_id=None).session_id is None
    finally:
        AMBIENT.reset(token)


def test_chunks_alone_are_kept_from_observers() -> None:
    assert Greeted.observed
    assert not LLMChunkEvent.observed


def test_ids_are_32_hexadecimal_digits() -> None:
    found = new_id()
    assert len(found) == 32
    assert set(found) <= set("0123456789abcdef")


def test_ids_are_unique_between_threads() -> None:
    found: list[list[str]] = [[] for _ in range(8)]

    def draw(into: list[str]) -> None:
        into.extend(new_id() for _ in range(2_000))

    threads = [threading.Thread(target=draw, args=(ids,)) for ids in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for ids in found for each in ids}) == 16_000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_draws_ids_of_its_own() -> None:
    new_id()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, " ".join(new_id() for _ in range(10)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writable)
    drawn = os.read(readable, 4096).decode().split()
    os.close(readable)
    assert len(drawn) == 10
    assert not set(drawn) & {new_id() for _ in range(300)}


def test_contracts_import_the_standard_library_alone() -> None:
    """Within the spine they import each other and the errors; settings would be allowed too.

    Only the codec, which is for boundaries, has pydantic check what it is given.
    """
    for path in Path(contracts.__file__).parent.rglob("*.py"):
        allowed = {*sys.stdlib_module_names, "llmgine"}
        if path.parent.name == "codec":
            allowed |= {"pydantic", "pydantic_core"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"
                if name.startswith("llmgine."):
                    assert name.split(".")[1] in {"contracts", "errors", "settings"}, path.name


def test_a_media_part_says_where_it_is_exactly_once() -> None:
    with pytest.raises(ValueError, match="exactly one of data, url and file_id; got none"):
        MediaPart(kind="image")
    with pytest.raises(ValueError, match="got url and file_id"):
        MediaPart(kind="image", url="u", file_id="f")
    assert MediaPart(kind="image", data=b"").data == b""


def test_what_is_not_reported_is_not_zero() -> None:
    total = Usage(input_tokens=1, details={"a": 1}) + Usage(
        input_tokens=2, output_tokens=0, details={"a": 1, "b": 2}
    )
    assert total == Usage(input_tokens=3, output_tokens=0, details={"a": 2, "b": 2})
    assert total.reasoning_tokens is None


def test_a_result_of_parts_has_their_text() -> None:
    image = MediaPart(kind="image", url="u")
    found = ToolResult(tool_call_id="1", name="look", content=(TextPart(text="a"), image))
    assert found.text == "a"
    assert LLMResponse(message=ChatMessage.assistant("a", image, "b")).text == "ab"


def test_every_code_names_its_error() -> None:
    assert provider_error("rate_limit").retryable
    assert provider_error("never heard of").code == "unknown"


def test_an_error_info_is_an_error_that_compares_by_its_fields() -> None:
    info = ErrorInfo.of(ValueError("x"))
    assert info == ErrorInfo("ValueError", "x")
    assert hash(info) == hash(ErrorInfo("ValueError", "x"))
    assert info != ErrorInfo("ValueError", "y")
    assert info != "ValueError: x"
    assert str(info) == "ValueError: x"
    assert str(ErrorInfo("KeyError", "")) == "KeyError"
    assert ErrorInfo.of(info) is info


class _Refusing(Publisher):
    async def publish(self, event: Event) -> None:
        raise QueueFullError("full")


async def test_telling_reports_a_refusal_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    assert await tell(None, Greeted())
    assert not await tell(_Refusing(), Greeted())
    assert "Greeted was not published" in caplog.text


def test_a_provider_that_says_nothing_can_do_everything() -> None:
    class Silent:
        name = "silent"

        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        def stream(self, request: LLMRequest) -> object:
            raise NotImplementedError

    assert capabilities_of(Silent()) == ProviderCapabilities()  # type: ignore[arg-type]
