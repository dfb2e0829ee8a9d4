"""Recording what a model answered, so that tests ask it only once.

In the `conftest.py` of a folder of tests:

    from llmgine.testing.cassettes import cassette
    from llmgine.testing.fixtures import start_app

    __all__ = ["cassette", "start_app"]

Then a test asks for the provider that was recorded:

    async def test_greeting(cassette: Cassettes, start_app: StartApp) -> None:
        provider = await cassette()
        app = await start_app(provider=provider, setup=register)
        ...

`LLMGINE_CASSETTES=record pytest` asks the provider that settings.toml names, and writes what it
answers beside the test: `cassettes/<module>/<test>.json`. Every other run answers from there, needs
neither key nor network, and never asks anybody: a request that isn't recorded is a `CassetteError`
that shows the nearest one that is.

Requests are the same if they ask for the same: ids, time limits, and what a provider put into its
own answers don't count. Equal requests are answered in the order in which they were recorded,
others in any order. No secret is written: neither what stands under a name like `api_key` nor what
looks like one. Errors and streams are recorded as well, broken ones included.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import pytest_asyncio

from llmgine.bootstrap import ApplicationConfig
from llmgine.bootstrap.wiring import Maker
from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.protocols import ProviderCapabilities, capabilities_of
from llmgine.contracts.stream import closing, fold, unfold
from llmgine.errors import CassetteError, CodecError, ProviderError
from llmgine.testing._interactions import (
    Cleaner,
    Outcome,
    Table,
    answer_so_far,
    as_table,
    difference,
    nearest,
)
from llmgine.testing.recording import RecordingPublisher

__all__ = ["VARIABLE", "CassettePlayer", "CassetteRecorder", "Cassettes", "cassette"]

VARIABLE = "LLMGINE_CASSETTES"
"""The environment variable that says whether to `record` or, by default, to `replay`."""

_VERSION = 1
_HOW = f"record it with {VARIABLE}=record"
_LONGEST_NAME = 100


class CassetteRecorder:
    """Hands calls on to a provider, and keeps what comes of them for a cassette.

    Args:
        provider: who answers.
        path: the cassette.
        scrub: changes every text before it is written.
    """

    def __init__(
        self, provider: LLMProvider, path: Path, scrub: Callable[[str], str] | None = None
    ) -> None:
        self.name = provider.name
        self._provider = provider
        self._path = path
        self._cleaner = Cleaner(scrub)
        self._interactions: list[Table] = []

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Those of the provider that answers."""
        return capabilities_of(self._provider)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the provider's answer, or raise its error."""
        entry = self._begun(request)
        try:
            response = await self._provider.complete(request)
        except ProviderError as error:
            entry.update(Outcome(error=error).written(self._cleaner))
            raise
        entry.update(Outcome(response=response).written(self._cleaner))
        return response

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the provider's chunks."""
        entry = self._begun(request)
        chunks: list[LLMChunk] = []
        failed: ProviderError | None = None
        left = True
        try:
            async with closing(self._provider.stream(request)) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    yield chunk
            left = False
        except ProviderError as error:
            failed, left = error, False
            raise
        finally:
            outcome = Outcome(chunks=tuple(chunks), error=failed, left=left)
            entry.update(outcome.written(self._cleaner))

    def save(self) -> None:
        """Write the cassette, in the place of an older one."""
        cassette: Table = {
            "cassette": _VERSION,
            "provider": self.name,
            "capabilities": dict(asdict(self.capabilities)),
            # A call that was cut off has nothing but its request.
            "interactions": [each for each in self._interactions if len(each) > 1],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(f"{_laid_out(cassette)}\n", "utf-8")
        unfinished.replace(self._path)

    def _begun(self, request: LLMRequest) -> Table:
        """Keep the place of a call among others at once, whenever it may end."""
        entry: Table = {"request": self._cleaner.request(request)}
        self._interactions.append(entry)
        return entry


def _laid_out(value: JsonValue, indent: str = "", *, flat: bool = False) -> str:
    """Return JSON for people to read: an item a line, also for each chunk of a stream."""
    deeper = f"{indent}  "
    if isinstance(value, dict) and value:
        signs = "{}"
        rows = [
            f"{_dumped(key)}: {_laid_out(item, deeper, flat=key == 'chunks')}"
            for key, item in value.items()
        ]
    elif isinstance(value, list) and value:
        signs = "[]"
        rows = [_dumped(item) if flat else _laid_out(item, deeper) for item in value]
    else:
        return _dumped(value)
    body = ",".join(f"\n{deeper}{row}" for row in rows)
    return f"{signs[0]}{body}\n{indent}{signs[1]}"


def _dumped(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


class CassettePlayer:
    """Answers from a cassette, and never asks anybody.

    Args:
        path: the cassette.
        scrub: what texts were changed by when it was recorded.

    Raises:
        CassetteError: there is none, or it can't be read.
    """

    def __init__(self, path: Path, scrub: Callable[[str], str] | None = None) -> None:
        self._path = path
        self._cleaner = Cleaner(scrub)
        cassette = _loaded(path)
        self.name = str(cassette["provider"])
        able = as_table(cassette.get("capabilities"))
        known = (each.name for each in fields(ProviderCapabilities) if each.name in able)
        self._capabilities = ProviderCapabilities(**{name: bool(able[name]) for name in known})
        self._recorded: dict[str, list[Table]] = {}
        self._outcomes: dict[str, deque[Outcome]] = {}
        for request, outcome in _interactions(path, cassette):
            key = _key(request)
            self._recorded.setdefault(key, []).append(request)
            self._outcomes.setdefault(key, deque()).append(outcome)

    @property
    def capabilities(self) -> ProviderCapabilities:
        """What the recorded provider could do."""
        return self._capabilities

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the recorded answer, or raise the recorded error.

        Raises:
            CassetteError: the request isn't recorded, or its answer was not read to its end.
        """
        outcome = self._next(request)
        if outcome.chunks is None:
            if outcome.error is None and outcome.response is not None:
                return outcome.response
            raise self._failure(outcome)
        if outcome.error is None and not outcome.left:
            return fold(outcome.chunks)
        raise self._failure(outcome)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the recorded chunks, and raise the recorded error behind them.

        Raises:
            CassetteError: the request isn't recorded, or more is read than was when it was.
        """
        outcome = self._next(request)
        chunks = outcome.chunks
        if chunks is None and outcome.response is not None and outcome.error is None:
            chunks = tuple(unfold(outcome.response))
        for chunk in chunks or ():
            await asyncio.sleep(0)
            yield chunk
        if outcome.error is not None or outcome.left:
            raise self._failure(outcome)

    def assert_finished(self) -> None:
        """Check that every recorded call was made again.

        Raises:
            CassetteError: some were not.
        """
        left = [key for key, outcomes in self._outcomes.items() for _ in outcomes]
        if left:
            first = json.dumps(self._recorded[left[0]][0], indent=1, ensure_ascii=False)
            raise CassetteError(
                f"{self._path}: {len(left)} recorded call(s) were never made, among them\n{first}"
            )

    def _next(self, request: LLMRequest) -> Outcome:
        asked = self._cleaner.request(request)
        key = _key(asked)
        outcomes = self._outcomes.get(key)
        if outcomes:
            return outcomes.popleft()
        if outcomes is not None:
            times = len(self._recorded[key])
            reason = f"the request is recorded {times} time(s), and was made once more"
        else:
            close = nearest(asked, (requests[0] for requests in self._recorded.values()))
            reason = "the request isn't recorded; " + (
                "nothing is" if close is None else f"the nearest is\n{difference(asked, close)}\n"
            )
        raise CassetteError(f"{self._path}: {reason}; {_HOW}")

    def _failure(self, outcome: Outcome) -> ProviderError | CassetteError:
        error = outcome.error
        if error is None:
            text = "the stream was left here when it was recorded: what follows isn't known"
            return CassetteError(f"{self._path}: {text}; {_HOW}")
        error.partial = answer_so_far(outcome.chunks) if outcome.chunks else outcome.response
        return error


def _key(request: Table) -> str:
    return json.dumps(request, sort_keys=True)


def _loaded(path: Path) -> Table:
    try:
        cassette = as_table(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise CassetteError(f"{path}: expected a cassette, found none; {_HOW}") from None
    except (OSError, ValueError) as error:
        raise CassetteError(f"{path}: expected a cassette, found: {error}; {_HOW}") from None
    if cassette.get("cassette") != _VERSION or "provider" not in cassette:
        raise CassetteError(f"{path}: expected a cassette of version {_VERSION}; {_HOW}")
    return cassette


def _interactions(path: Path, cassette: Table) -> Iterator[tuple[Table, Outcome]]:
    entries = cassette.get("interactions")
    if not isinstance(entries, list):
        raise CassetteError(f"{path}: expected a list of interactions, found none; {_HOW}")
    for number, each in enumerate(entries, 1):
        entry = as_table(each)
        try:
            yield as_table(entry.get("request")), Outcome.read(entry)
        except CodecError as error:
            text = f"{path}: interaction {number}: {error}; {_HOW}"
            raise CassetteError(text) from error


class Cassettes:
    """The cassettes of one test: what the fixture `cassette` gives.

    Args:
        folder: where they lie.
        test: the test's name.
        stack: ends what is begun.

    Raises:
        CassetteError: the environment asks for neither `record` nor `replay`.
    """

    def __init__(self, folder: Path, test: str, stack: AsyncExitStack) -> None:
        mode = os.environ.get(VARIABLE, "replay")
        if mode not in {"record", "replay"}:
            raise CassetteError(f"{VARIABLE}: expected 'record' or 'replay', found {mode!r}")
        self.recording = mode == "record"
        self._folder = folder
        self._test = _file_name(test)
        self._stack = stack
        self._paths: set[Path] = set()
        self._players: list[CassettePlayer] = []

    async def __call__(
        self,
        make: Callable[[], LLMProvider] | None = None,
        *,
        name: str = "",
        scrub: Callable[[str], str] | None = None,
    ) -> LLMProvider:
        """Return a provider that answers from the cassette, or records it.

        Args:
            make: makes the provider to be recorded, and is called for that alone; by default it
                is the one that the settings name.
            name: tells the cassettes of a test apart, where it uses several.
            scrub: changes every text before it is written or compared: a date, or the name of a
                temporary folder.

        Raises:
            CassetteError: the test has a cassette of that name already, or it can't be read.
        """
        path = self._folder / f"{self._test}{f'.{name}' if name else ''}.json"
        if path in self._paths:
            raise CassetteError(f"{path} is in use: give each cassette of a test its own `name`")
        self._paths.add(path)
        if not self.recording:
            player = CassettePlayer(path, scrub)
            self._players.append(player)
            return player
        recorder = CassetteRecorder(await self._made(make), path, scrub)
        self._stack.callback(recorder.save)
        return recorder

    def assert_finished(self) -> None:
        """Check that every recorded call was made again; while recording there is nothing to do.

        Raises:
            CassetteError: some were not.
        """
        for player in self._players:
            player.assert_finished()

    async def _made(self, make: Callable[[], LLMProvider] | None) -> LLMProvider:
        maker = Maker(ApplicationConfig(), RecordingPublisher(), self._stack)
        return await maker.part("provider", LLMProvider, None, make or maker.provider)


def _file_name(test: str) -> str:
    """Return a test's name as a file may have it, different for different tests."""
    name = re.sub(r"[^\w.-]+", "-", test).strip("-")[:_LONGEST_NAME]
    if name == test:
        return name
    return f"{name}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"


@pytest_asyncio.fixture
async def cassette(request: pytest.FixtureRequest) -> AsyncGenerator[Cassettes, None]:
    """A function that returns a provider which answers from a cassette beside the test.

    `LLMGINE_CASSETTES=record pytest` records it anew: see this module.
    """
    folder = request.path.parent / "cassettes" / request.path.stem
    test = request.node.nodeid.partition("::")[2]
    async with AsyncExitStack() as stack:
        yield Cassettes(folder, test, stack)
