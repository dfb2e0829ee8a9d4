"""What the README says can be typed."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import fields
from pathlib import Path

import httpx2
import pytest
from api.settings import ApiSettings

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
async def test_curl_gets_an_answer(server: str) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    process = await asyncio.create_subprocess_shell(
        command.replace("http://127.0.0.1:8000", server),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"no_proxy": "*"},
    )
    answer, _ = await process.communicate()
    assert process.returncode == 0
    assert b"408" in answer


async def test_every_route_and_setting_is_there(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in paths:
        if "approvals/" not in path and not path.startswith("/v1/models/"):
            assert path.replace("session_id", "id") in README, path
    names = {each.name for each in fields(ApiSettings)} - {"key"}
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == names


def test_files_are_there() -> None:
    table = README.partition("## Files")[2]
    folder = Path(__file__).parents[1] / "src/api"
    named = set(re.findall(r"`(\w+(?:\.py|/))`", table))
    there = {each.name + "/" * each.is_dir() for each in folder.iterdir()}
    assert there - {"__init__.py", "__pycache__/", "py.typed"} == named
