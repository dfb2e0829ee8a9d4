"""Backends for OpenTelemetry that others have made, each a process on loopback, and a conversation.

`python -m tests.backends` makes the picture of a trace in the projects' `docs/observability.md`
anew; it takes chromium.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

from extensions.questionnaire import ROOT

__all__ = ["Phoenix", "Running", "converse", "free_port", "running"]

T = TypeVar("T")

_START = 300.0  # it makes its database first

PICTURE = ROOT / "template" / "docs" / "trace.png"


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


class Running:
    """A process, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[bytes]", printed: Path) -> None:
        self._process, self._printed = process, printed

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self._printed.read_text("utf-8")

    def until(self, look: Callable[[], T | None], patience: float = 120.0) -> T:
        """Look again and again until there is something to be seen."""
        deadline = time.monotonic() + patience
        while (found := look()) is None:
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)
        return found

    def listening(self, port: int) -> None:
        """Wait until it listens."""

        def listens() -> bool | None:
            with socket.socket() as probe:
                return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None

        self.until(listens)


def _environment(**variables: str) -> dict[str, str]:
    own = ("LLMGINE_", "OTEL_")
    return {name: it for name, it in os.environ.items() if not name.startswith(own)} | variables


@contextmanager
def running(package: str, *command: str, folder: Path, **variables: str) -> Generator[Running]:
    """Run a package's command in an environment of its own."""
    run = ["uv", "run", "--no-project", "--isolated", "--quiet", "--with", package, *command]
    printed = folder / f"{package}.txt"
    with (
        printed.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - a package that we name
            run, cwd=folder, env=_environment(**variables), stdout=file, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield Running(process, printed)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def converse(folder: Path, endpoint: str, **settings: str) -> str:
    """Have the chat application ask for a sum, tell OpenTelemetry of it, and return its answer."""
    otel = {"enabled": "true", "endpoint": endpoint, "service_name": "my-app", **settings}
    variables = {f"LLMGINE_OTEL__{name.upper()}": value for name, value in otel.items()}
    # A backend on a machine that is busy with other things takes its time.
    variables |= {"LLMGINE_OBSERVABILITY__STOP_TIMEOUT": "60", "LLMGINE_CONSOLE__ENABLED": "false"}
    done = subprocess.run(  # noqa: S603 - our own program
        [
            str(Path(sys.executable).with_name("chat")),
            *("--session", "a-chat", "--once", "What is 12 * (3 + 4)?"),
        ],
        cwd=folder,
        env=_environment(**variables),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Phoenix:
    """Arize Phoenix, which keeps traces and shows them in a browser.

    Args:
        folder: where it keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Running
        self.endpoint = f"http://127.0.0.1:{free_port()}"

    @contextmanager
    def running(self) -> Generator["Phoenix"]:
        """Run it, from when it answers."""
        variables = {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.endpoint.rpartition(":")[2],
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(self._folder),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        command = ("arize-phoenix", "phoenix", "serve")
        with running(*command, folder=self._folder, **variables) as self._process:
            self._process.until(lambda: self.get("/v1/projects"), _START)
            yield self

    def get(self, path: str) -> list[dict[str, Any]] | None:
        """Return what its REST interface knows; None while it doesn't."""
        try:
            with urlopen(f"{self.endpoint}{path}", timeout=30) as response:  # noqa: S310 - loopback
                return json.load(response)["data"] or None
        except (URLError, OSError):
            return None

    def spans(self, count: int) -> list[dict[str, Any]]:
        """Return the spans that it has, once there are so many."""

        def enough() -> list[dict[str, Any]] | None:
            found = self.get("/v1/projects/default/spans?limit=100") or []
            return found if len(found) >= count else None

        return self._process.until(enough)

    def photograph(self, target: Path) -> None:
        """Take a picture of the only trace, its last model call selected."""
        (project,) = self.get("/v1/projects") or []
        spans = self.spans(4)
        chosen = max((each for each in spans if each["span_kind"] == "LLM"), key=_beginning)
        trace = f"/projects/{project['id']}/traces/{chosen['context']['trace_id']}"
        address = f"{self.endpoint}{trace}?selectedSpanNodeId={chosen['id']}"
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run(  # noqa: S603 - our own arguments
                [
                    shutil.which("chromium") or "chromium",
                    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                    *("--window-size=1400,720", "--virtual-time-budget=30000"),
                    f"--user-data-dir={profile}",
                    f"--screenshot={target}",
                    address,
                ],
                check=True,
                capture_output=True,
                timeout=200,
            )


def _beginning(span: dict[str, Any]) -> str:
    return span["start_time"]


def main() -> None:
    """Make the picture anew."""
    with tempfile.TemporaryDirectory() as folder, Phoenix(Path(folder)).running() as phoenix:
        converse(Path(folder), phoenix.endpoint, content="true", metrics="false", logs="false")
        phoenix.photograph(PICTURE)


if __name__ == "__main__":
    main()
