"""The bot as a program: the demo, the token, the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from discord_bot.cli import main
from discord_bot.config import BotConfig, DiscordSettings, token_of
from llmgine.errors import ConfigurationError

README = Path(__file__).parent.parent / "README.md"
TOKEN = "a-token-that-nobody-may-see"  # noqa: S105 - of no use anywhere


def in_readme(pattern: str) -> str:
    found = re.search(pattern, README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_demo_that_the_readme_shows_plays_a_conversation(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    name, *options = in_readme(r"^uv run (discord-bot --demo)$").split()
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run(  # noqa: S603 - our own program
        [program, *options],
        cwd=tmp_path,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "connected as assistant, on 1 server\n"
    steps = (
        "Ada        @assistant What is 12 * 34",
        "thread #What is 12 * 34",
        "assistant  Let me work that out",
        "[Approve] [Deny]",
        "Bob        clicks on [Approve]",
        "Only @Ada can decide about this.",
        "Ada        clicks on [Approve]",
        "✅ Approved.",
        "assistant  12 * 34 is **408**. Your notes say: Ship the release on Friday.",
        "✔ tool calculate",
        "That was it.",
    )
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places, done.stdout
    assert places == sorted(places)
    assert list(tmp_path.iterdir()) == []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the program to its end, in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["discord-bot", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_without_a_token_there_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    assert run(monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith("DISCORD_TOKEN: expected the bot's token in the environment or in .env")
    assert "--demo needs none" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("given", ["two words", "a\ttab", "wort\u00e4hnlich", '"quoted"'])
def test_what_can_t_be_a_token_is_refused_without_being_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISCORD_TOKEN", given)
    assert run(monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith("DISCORD_TOKEN: expected a token, found characters that no token has")
    assert given not in err


def test_the_token_stands_in_the_environment_or_in_the_file_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    (tmp_path / ".env").write_text(f"DISCORD_TOKEN={TOKEN}\n")
    config = BotConfig()
    assert token_of(config) == TOKEN
    assert TOKEN not in repr(config) + str(config)
    monkeypatch.setenv("DISCORD_TOKEN", " another\n")
    assert token_of(config) == "another"


def test_the_token_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text(f'[discord]\ntoken = "{TOKEN}"\n')
    assert run(monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith("discord.token: no such setting")
    assert TOKEN not in err


def test_the_settings_that_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = in_readme(r"^```toml\n(.*?)^```")
    (tmp_path / "settings.toml").write_text(shown, "utf-8")
    assert BotConfig().discord == DiscordSettings(
        guilds=[123456789012345678],
        roles=[234567890123456789],
        users=[345678901234567890],
        idle=3600,
    )
    monkeypatch.setenv("LLMGINE_DISCORD__ROLES", "1, 2")
    assert BotConfig().discord.roles == [1, 2]


@pytest.mark.parametrize("idle", [0, -1, float("nan")])
def test_numbers_that_can_t_be_meant_are_refused(idle: float) -> None:
    with pytest.raises(ConfigurationError, match="idle: expected a number above 0"):
        DiscordSettings(idle=idle)


def test_names_of_servers_are_no_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"discord\.guilds"):
        BotConfig(discord={"guilds": ["my server"]})
