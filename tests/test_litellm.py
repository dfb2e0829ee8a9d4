"""LiteLLM in an environment of its own: it shares none with the newest SDK of OpenAI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SPINE = Path(__file__).parents[1] / "template/libs/llmgine"
# Loaded by every Python that starts there: whoever looks beyond this machine is written down.
WATCH = """
import sys

def _watch(event, args):
    if event == "socket.connect":
        host = args[1][0] if isinstance(args[1], tuple) else "127.0.0.1"
    elif event == "socket.getaddrinfo":
        host = args[0] or "127.0.0.1"
    else:
        return
    if str(host) not in {"127.0.0.1", "::1", "localhost"}:
        with open(LOG, "a") as log:
            print(event, args, file=log)
        raise OSError("no network in tests")

sys.addaudithook(_watch)
"""


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own program
        [str(each) for each in command],
        cwd=SPINE,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_the_provider_in_an_environment_with_litellm_and_without_network(tmp_path: Path) -> None:
    python = tmp_path / "env/bin/python"
    run("uv", "venv", "--quiet", tmp_path / "env")
    tools = ("hypothesis", "pytest>=9,<10", "pytest-timeout")
    spine = f"{SPINE}[litellm,testing]"
    run("uv", "pip", "install", "--quiet", "--python", python, "--editable", spine, *tools)
    log = tmp_path / "connections"
    (tmp_path / "sitecustomize.py").write_text(f"LOG = {str(log)!r}\n{WATCH}")
    probe = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n"
        "    socket.create_connection(('192.0.2.1', 9), 1)"
    )
    run(python, "-c", probe, PYTHONPATH=str(tmp_path))
    assert "192.0.2.1" in log.read_text(), "nobody watches"
    log.unlink()
    said = run(
        python,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/providers/test_litellm.py"),
        PYTHONPATH=str(tmp_path),
    )
    assert " passed" in said
    assert "skipped" not in said
    assert not log.exists(), log.read_text()
