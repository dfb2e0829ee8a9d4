"""What `[mcp.servers]` may say, and the names that come of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bootstrap import ApplicationConfig
from llmgine.errors import ConfigurationError
from llmgine.tools.mcp.naming import offered_name


@given(st.lists(st.text(), unique=True), st.from_regex(r"[a-z_]{0,20}", fullmatch=True))
def test_every_name_is_offered_under_a_legal_one_of_its_own(names: list[str], prefix: str) -> None:
    taken: set[str] = set()
    for name in names:
        offered = offered_name(prefix, name, taken)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", offered)
        assert offered not in taken
        taken.add(offered)


@given(st.from_regex(r"[a-zA-Z0-9_-]{1,44}", fullmatch=True))
def test_a_legal_name_stays_as_it_is(name: str) -> None:
    assert offered_name("files_", name, ()) == f"files_{name}"


def test_settings_are_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGINE_MCP__SERVERS__WEB__HEADERS__AUTHORIZATION", "Bearer 123")
    file = tmp_path / "settings.toml"
    file.write_text(
        '[mcp.servers.files]\ncommand = "files-mcp"\nargs = ["."]\n'
        '[mcp.servers.web]\nurl = "https://example.com/mcp"\napproval = "writes"\n'
    )
    servers = ApplicationConfig(settings_file=file).mcp.servers
    assert (servers["files"].command, servers["files"].args) == ("files-mcp", ["."])
    assert servers["files"].approval == "always"
    assert servers["web"].headers == {"authorization": "Bearer 123"}


@pytest.mark.parametrize(
    ("servers", "line"),
    [
        ({"a": {}}, "mcp.servers.a.command: expected either `command` or `url`, found neither"),
        (
            {"a": {"command": "x", "url": "http://x"}},
            "mcp.servers.a.command: expected either `command` or `url`, found both",
        ),
        ({"a": {"url": "x.com"}}, "mcp.servers.a.url: expected it to begin with http"),
        (
            {"a": {"command": "x", "headers": {"a": "secret"}}},
            "mcp.servers.a.headers: expected beside `url` alone",
        ),
        ({"a": {"url": "http://x", "args": ["secret"]}}, "mcp.servers.a.args: expected beside"),
        ({"a": {"command": "x", "timeout": 0}}, "mcp.servers.a.timeout: expected a number"),
        ({"a": {"command": "x", "approval": "no"}}, "mcp.servers.a.approval: expected 'always'"),
        ({"a": {"comand": "secret"}}, "mcp.servers.a.comand: expected another name, found a hid"),
        ({"a": {"command": "x", "env": {"A": 1}}}, "mcp.servers.a.env.A: expected text, found a"),
        ({"a b": {"command": "x"}}, "mcp.servers: expected names of 1 to 32 letters"),
    ],
)
def test_what_can_t_be_meant_is_a_line(servers: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ApplicationConfig(settings_file=None, mcp={"servers": servers})
    assert line in str(caught.value)
    assert "secret" not in str(caught.value)
