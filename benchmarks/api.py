# /// script
# requires-python = ">=3.11"
# dependencies = ["api", "assistant", "llmgine[jsonl]"]
#
# [tool.uv.sources]
# api = { path = "../template/apps/api", editable = true }
# assistant = { path = "../template/libs/assistant", editable = true }
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What the API adds to a request, beside a bare FastAPI endpoint that answers the same.

    uv run benchmarks/api.py [--quick] [--rounds N] [--json FILE] [--readme]

Each server is a process of its own with the same web server; a client asks them in turns, and the
median of what each one's requests take of its CPU counts, so that a busy machine changes little.
All answer in 50 words, at once. The project's API checks the whole request as OpenAI's API does,
runs a command on the bus in a session of its own, and publishes the call and every piece as
events. Every answer is checked: a wrong one is the one thing that fails.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from reports import Report, Row, report_on

__all__ = ["main"]

_SERVERS = Path(__file__).with_name("api_servers.py")
_OURS, _WRITTEN, _BARE = "llmgine", "... with its event file", "bare FastAPI"
_SERVED = {_OURS: "ours", _WRITTEN: "written", _BARE: "bare"}
_ANSWER = " ".join(f"word{number}" for number in range(50))
_PER_ROUND = 10
_ROWS = (
    Row("streamed", "a request, answered in 50 pieces", "bare stream", 2),
    Row("plain", "a request, answered as a whole", "bare stream", 2),
    Row("beside", "... beside an endpoint that says one text", "bare", None),
    Row("streamed_ms", "in 50 pieces", "ms"),
    Row("plain_ms", "as a whole", "ms"),
)


@dataclass
class _Subject:
    """A way to be answered by a server, and the milliseconds of CPU that a request took."""

    row: str
    name: str
    connection: http.client.HTTPConnection
    taken: list[float] = field(default_factory=list[float])
    asked: int = 0
    wrong: int = 0

    def ask(self, times: int) -> None:
        """Ask so often, check the answers, and note what one takes."""
        streamed = self.row == "streamed"
        body = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}]}
        data = json.dumps({**body, "stream": streamed}).encode()
        path = f"/{self.row if self.name == _BARE else 'v1'}/chat/completions"
        began = self._clock()
        for _ in range(times):
            self.connection.request("POST", path, data, {"Content-Type": "application/json"})
            answer = self.connection.getresponse().read()
            self.asked += 1
            self.wrong += _text(answer, streamed=streamed) != _ANSWER
        self.taken.append((self._clock() - began) / times / 1e6)

    def _clock(self) -> int:
        self.connection.request("GET", "/clock")
        return int(self.connection.getresponse().read())


def _text(answer: bytes, *, streamed: bool) -> str:
    if not streamed:
        return json.loads(answer)["choices"][0]["message"]["content"]
    lines = (line[6:] for line in answer.splitlines() if line.startswith(b"data: {"))
    choices = (choice for line in lines for choice in json.loads(line)["choices"])
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@contextmanager
def _server(served: str) -> Generator[subprocess.Popen[str]]:
    """Run a server, which prints its URL once it listens."""
    command = [sys.executable, "-P", str(_SERVERS), served, _ANSWER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.terminate()


def _measured(rounds: int, times: int) -> list[_Subject]:
    with ExitStack() as stack:
        subjects: list[_Subject] = []
        servers = {name: stack.enter_context(_server(each)) for name, each in _SERVED.items()}
        for name, server in servers.items():
            address = urlsplit(server.stdout.readline().strip() if server.stdout else "").netloc
            for row in ("plain", "streamed"):
                connection = http.client.HTTPConnection(address, timeout=60)
                stack.callback(connection.close)
                subjects.append(_Subject(row, name, connection))
        for subject in subjects:
            subject.ask(2 * times)  # to warm up
            subject.taken.clear()
        for _ in range(rounds):
            for subject in subjects:
                subject.ask(times)
    return subjects


async def _measure(rounds: int, quick: bool) -> Report:
    times = 1 if quick else _PER_ROUND
    subjects = await asyncio.to_thread(_measured, rounds, times)
    taken = {(each.row, each.name): median(each.taken) for each in subjects}
    figures = {(f"{row}_ms", name): each for (row, name), each in taken.items()}
    figures |= {at: each / taken["streamed", _BARE] for at, each in taken.items()}
    plain = taken["plain", _BARE]
    figures |= {("beside", name): taken["plain", name] / plain for name in _SERVED}
    asked = sum(each.asked for each in subjects)
    return Report(
        rows=_ROWS,
        names=[*_SERVED],
        own=[_OURS],
        figures=figures,
        notes=[
            f"CPU time of the server; median of {rounds} rounds of {times} requests.",
            "Each server is a process of its own under uvicorn, with one client on one connection.",
            f"{asked:,} answers, {sum(each.wrong for each in subjects)} wrong.",
        ],
        wrong=[f"{each.row}, {each.name}: {each.wrong}" for each in subjects if each.wrong],
    )


def main() -> int:
    """Measure, and print a table; return 1 if an answer is wrong."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    return report_on("api", summary, 60, _measure)


if __name__ == "__main__":
    sys.exit(main())
