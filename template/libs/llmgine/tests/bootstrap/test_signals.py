"""SIGTERM and SIGINT drain; a second signal leaves at once. Each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

PROGRAM = """
import asyncio
import sys
from dataclasses import dataclass

from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig, exit_on_wrong_settings
from llmgine.contracts import Event
from llmgine.observability import ObservabilityEventHandler


@dataclass(frozen=True, kw_only=True)
class Work(Event):
    pass


class Tell(ObservabilityEventHandler):
    def handle(self, event):
        pass

    def stop(self, timeout):
        print("observability stopped", flush=True)


async def work(event):
    print("working", flush=True)
    await asyncio.sleep(float(sys.argv[1]))
    print("worked", flush=True)


def setup(app):
    app.bus.register_event_handler(Work, work)


async def main():
    config = ApplicationConfig(settings_file=None, console={"enabled": False})
    async with ApplicationBootstrap(config, handlers=[Tell()], setup=setup) as app:
        await app.bus.publish(Work())
        print(repr(await app.run_until_signal()), flush=True)
    print("stopped", flush=True)


with exit_on_wrong_settings():
    asyncio.run(main())
"""


@contextmanager
def running(folder: Path, seconds: float) -> Generator[subprocess.Popen[str], None, None]:
    environment = {**os.environ, "LLMGINE_FILE__ENABLED": "false"}
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(seconds)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_work_end(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, 0.3) as process:
        assert line(process) == "working"
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert output.splitlines() == [
        repr(number),
        "worked",
        "observability stopped",
        "stopped",
    ]
    assert process.returncode == 0


def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    with running(tmp_path, 60) as process:
        assert line(process) == "working"
        process.send_signal(signal.SIGINT)
        assert line(process) == repr(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=5)
    assert (output, process.returncode) == ("", 128 + signal.SIGTERM)


def test_wrong_settings_are_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[bus]\nthreads = 'many'\n")
    program = PROGRAM.replace("settings_file=None, ", "")
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program, "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("bus.threads: expected a whole number, found 'many' (settings.toml)\n")


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("this is no TOML")
    program = (
        "import threading, sys, llmgine.bootstrap, signal\n"
        "assert threading.active_count() == 1\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "print([m for m in sys.modules if m.partition('.')[0] in"
        " {'rich', 'typer', 'xllamacpp', 'opentelemetry', 'fastapi'}])"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == [tmp_path / "settings.toml"]
