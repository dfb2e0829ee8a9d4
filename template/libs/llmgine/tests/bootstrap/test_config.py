from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import ClassVar

import pytest
from llmgine.bootstrap import ApplicationConfig, exit_on_wrong_settings
from llmgine.errors import ConfigurationError
from llmgine.settings import (
    BusSettings,
    ConsoleSettings,
    FileSettings,
    ObservabilitySettings,
    ProviderSettings,
)


@dataclass(frozen=True, kw_only=True)
class ShopSettings:
    name: str = ""


GROUPS = ", ".join(sorted(ApplicationConfig.model_fields))
WORKSPACE = "[tool.uv.workspace]\nmembers = []\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wrong(settings_file: str | EllipsisType = ..., **values: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ApplicationConfig(settings_file=settings_file, **values)
    return str(caught.value)


# -- Where settings come from, and which win


def test_without_any_source_the_rooms_own_defaults_hold(folder: Path) -> None:
    config = ApplicationConfig()
    assert config.bus == BusSettings()
    assert config.console == ConsoleSettings()
    assert config.observability == ObservabilitySettings()
    assert config.provider == ProviderSettings()
    assert config.file == FileSettings(path=folder / ".llmgine/events.jsonl")
    assert (config.settings_file, config.folder) == (None, folder)


def test_each_source_wins_over_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("threads", "queue_size", "abandoned_threads", "concurrent_per_session")
    table = "".join(f"{name} = 11\n" for name in names)
    (folder / "settings.toml").write_text(f"[bus]\n{table}")
    (folder / ".env").write_text(
        "".join(f"LLMGINE_BUS__{name.upper()}=12\n" for name in names[1:]) + "OTHER=1\n"
    )
    for name in names[2:]:
        monkeypatch.setenv(f"LLMGINE_BUS__{name.upper()}", "13")
    bus = ApplicationConfig(bus={names[3]: 14}).bus
    assert [getattr(bus, name) for name in names] == [11, 12, 13, 14]
    assert bus.command_timeout == BusSettings().command_timeout


def test_what_dotenv_says_to_others_reaches_the_provider_and_is_never_shown(folder: Path) -> None:
    (folder / ".env").write_text("OPENAI_API_KEY=sk-secret\nllm_x=1\nLLMGINE_BUS__THREADS=3\nE=\n")
    expected = {"OPENAI_API_KEY": "sk-secret", "llm_x": "1"}
    config = ApplicationConfig()
    assert config.provider.variables == expected
    assert ApplicationConfig(provider=ProviderSettings(name="x")).provider.variables == expected
    config = ApplicationConfig(provider={"variables": {"llm_x": "2"}})
    assert config.provider.variables == {**expected, "llm_x": "2"}
    assert ApplicationConfig(settings_file=None).provider.variables == {}
    assert "sk-secret" not in repr(config)
    assert "12345" not in wrong(provider={"variables": {"KEY": 12345}})


def test_an_object_given_in_code_replaces_its_group(folder: Path) -> None:
    (folder / "settings.toml").write_text("[provider]\nname = 'local'\nmodel = 'm'\n")
    assert ApplicationConfig(provider={"name": "scripted"}).provider.model == "m"
    given = ProviderSettings(name="scripted")
    assert ApplicationConfig(provider=given).provider.model == ""


def test_none_reads_neither_settings_nor_dotenv(folder: Path) -> None:
    (folder / "settings.toml").write_text("[bus]\nthreads = 3\n")
    (folder / ".env").write_text("LLMGINE_BUS__QUEUE_SIZE=3\n")
    assert ApplicationConfig(settings_file=None).bus == BusSettings()


def test_variables_may_be_written_small_and_tables_of_free_keys_are_spelled_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("llmgine_bus__command_timeout", "inf")
    monkeypatch.setenv("LLMGINE_PROVIDER__OPTIONS__BASE_URL", "http://localhost")
    config = ApplicationConfig()
    assert config.bus.command_timeout == math.inf
    assert config.provider.options == {"base_url": "http://localhost"}


def test_it_knows_what_was_set_and_what_has_its_default(folder: Path) -> None:
    (folder / "settings.toml").write_text("[file]\nenabled = true\n")
    config = ApplicationConfig(bus=BusSettings(threads=3))
    assert config.says("file")
    assert config.says("file.enabled")
    assert config.says("bus.threads")
    assert not config.says("file.path")
    assert not config.says("console")


def test_options_are_kept_out_of_repr() -> None:
    config = ApplicationConfig(provider={"options": {"api_key": "sk-secret"}})
    assert "sk-secret" not in repr(config)


def test_an_application_adds_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Greeting:
        word: str = "Hello"
        times: int = 1

    class OwnConfig(ApplicationConfig):
        greeting: Greeting = Greeting()
        title: str = ""

    monkeypatch.setenv("LLMGINE_TITLE", "Dr")
    config = OwnConfig(greeting=Greeting(word="Hi"))
    assert (config.greeting, config.title) == (Greeting(word="Hi"), "Dr")
    monkeypatch.setenv("LLMGINE_GREETING__TIMES", "2")
    assert OwnConfig().greeting == Greeting(times=2)
    monkeypatch.setenv("LLMGINE_GREETING__TIMES", "many")
    with pytest.raises(ConfigurationError, match=r"greeting\.times: expected a whole number"):
        OwnConfig()


def test_what_only_another_application_knows_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shared(ApplicationConfig):
        elsewhere: ClassVar[frozenset[str]] = frozenset({"shop"})

    class Shop(Shared):
        shop: ShopSettings = ShopSettings()

    (folder / "settings.toml").write_text('[shop]\nname = "from the file"\n[bus]\nthreads = 3\n')
    (folder / ".env").write_text("LLMGINE_SHOP__NAME=from .env\n")
    monkeypatch.setenv("LLMGINE_SHOP__PORT", "1")
    assert Shared().bus.threads == 3
    with pytest.raises(ConfigurationError, match="LLMGINE_SHOP__PORT: no such setting"):
        Shop()
    monkeypatch.delenv("LLMGINE_SHOP__PORT")
    assert Shop().shop.name == "from .env"
    with pytest.raises(ConfigurationError, match="shop: no such setting"):
        ApplicationConfig()


def test_a_variable_that_should_be_json_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OwnConfig(ApplicationConfig):
        names: tuple[str, ...] = ()

    monkeypatch.setenv("LLMGINE_NAMES", "s3cret, not JSON")
    with pytest.raises(ConfigurationError) as caught:
        OwnConfig()
    assert "names" in str(caught.value)
    assert "s3cret" not in str(caught.value)


# -- Where the settings file lies


def test_it_is_looked_for_up_to_the_workspace_and_not_beyond(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder / "project"
    deep = root / "apps" / "chat"
    deep.mkdir(parents=True)
    (folder / "settings.toml").write_text("[bus]\nthreads = 3\n")
    monkeypatch.chdir(deep)
    assert ApplicationConfig().settings_file is None
    (root / "pyproject.toml").write_text(WORKSPACE)
    (root / ".env").write_text("LLMGINE_BUS__THREADS=5\n")
    config = ApplicationConfig()
    assert (config.settings_file, config.folder, config.bus.threads) == (None, root, 5)
    (root / "settings.toml").write_text("[bus]\nthreads = 4\n")
    assert ApplicationConfig().settings_file == root / "settings.toml"
    (deep / "settings.toml").write_text("")
    assert ApplicationConfig().folder == deep


@pytest.mark.parametrize("text", ["not toml", "tool = 3", "[tool]\nuv = 'x'", "[tool.uv]\n"])
def test_a_pyproject_that_is_no_workspace_is_passed_over(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    (folder / "settings.toml").write_text("[bus]\nthreads = 3\n")
    assert ApplicationConfig().bus.threads == 3


def test_paths_are_meant_from_the_settings_files_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folder / "own.toml"
    own.write_text("[file]\npath = 'logs/events.jsonl'\n")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert ApplicationConfig(settings_file="../own.toml").file.path.resolve() == (
        folder / "logs/events.jsonl"
    )
    monkeypatch.setenv("LLMGINE_FILE__PATH", "~/events.jsonl")
    assert ApplicationConfig(settings_file=own).file.path == Path.home() / "events.jsonl"
    absolute = ApplicationConfig(settings_file=own, file={"path": "/var/e.jsonl"})
    assert absolute.file.path == Path("/var/e.jsonl")


def test_a_file_that_was_named_must_be_there(folder: Path) -> None:
    assert wrong(settings_file="no.toml") == (
        f"settings file: expected a file, found none at {folder}/no.toml"
    )


def test_a_byte_order_mark_is_no_error(folder: Path) -> None:
    (folder / "settings.toml").write_bytes(b"\xef\xbb\xbf[bus]\nthreads = 3\n")
    assert ApplicationConfig().bus.threads == 3


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("settings.toml", b"[bus\n", "expected TOML, found:"),
        ("settings.toml", b"a = '\xff'\n", "expected UTF-8"),
        (".env", b"A=\xff\n", "expected UTF-8"),
    ],
)
def test_a_file_that_can_t_be_read_is_named(
    folder: Path, name: str, content: bytes, found: str
) -> None:
    (folder / name).write_bytes(content)
    text = wrong()
    assert text.startswith(f"{folder / name}: {found}")
    assert "\n" not in text


def test_a_folder_is_no_settings_file(folder: Path) -> None:
    (folder / "settings.toml").mkdir()
    assert ApplicationConfig().settings_file is None
    assert wrong(settings_file="settings.toml").endswith(f"found none at {folder}/settings.toml")


def test_a_deleted_working_directory_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert wrong() == "working directory: expected one, found it deleted"


# -- What is wrong is said in a line


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            "[console]\nenabled = 'maybe'",
            "console.enabled: expected true or false, found 'maybe' (settings.toml)",
        ),
        (
            "[console]\ncolour = 'red'",
            "console.colour: expected 'auto', 'always' or 'never', found 'red' (settings.toml)",
        ),
        (
            "[bus]\nqueue_size = 0",
            "bus.queue_size: expected a number from 1 up, found 0 (settings.toml)",
        ),
        (
            "[bus]\nqueue_size = 1.5",
            "bus.queue_size: expected a whole number, found 1.5 (settings.toml)",
        ),
        (
            "[bus]\ncommand_timeout = nan",
            "bus.command_timeout: expected a number from 0 up, found nan (settings.toml)",
        ),
        (
            "[bus]\ncommand_timeout = true",
            "bus.command_timeout: expected a number, found True (settings.toml)",
        ),
        ("[file]\npath = 3", "file.path: expected a path, found 3 (settings.toml)"),
        (
            '[file]\npath = "a\\u0000b"',
            "file.path: expected a path, found 'a\\x00b' (settings.toml)",
        ),
        (
            "[file]\npath = '~nobody-of-this-name/x'",
            "file.path: expected a path, found '~nobody-of-this-name/x' (settings.toml)",
        ),
        (
            "provider = 'local'",
            "provider: expected a table of settings, found 'local' (settings.toml)",
        ),
        (
            "[provider]\noptions = 'x'",
            "provider.options: expected a table of settings, found a hidden str (settings.toml)",
        ),
        (
            "[consol]\nenabled = true",
            "consol: no such setting; did you mean console? (settings.toml)",
        ),
        (
            "[bus]\nqueue_sise = 3",
            "bus.queue_sise: no such setting; did you mean bus.queue_size? (settings.toml)",
        ),
        (
            "zzz = 3",
            f"zzz: no such setting; there are {GROUPS} (settings.toml)",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, table: str, line: str) -> None:
    (folder / "settings.toml").write_text(f"{table}\n")
    assert wrong() == line


def test_the_source_that_won_is_the_one_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "settings.toml").write_text("[bus]\nthreads = 'a'\n")
    assert wrong().endswith("found 'a' (settings.toml)")
    (folder / ".env").write_text("LLMGINE_BUS__THREADS=b\n")
    assert wrong().endswith("found 'b' (LLMGINE_BUS__THREADS in .env)")
    monkeypatch.setenv("LLMGINE_BUS__THREADS", "c")
    assert wrong().endswith("found 'c' (LLMGINE_BUS__THREADS in the environment)")
    assert wrong(bus={"threads": "d"}).endswith("found 'd' (given in code)")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "LLMGINE_CONSOLE__ENABLD",
            "LLMGINE_CONSOLE__ENABLD: no such setting; did you mean LLMGINE_CONSOLE__ENABLED?",
        ),
        (
            "LLMGINE_PROVIDER",
            "LLMGINE_PROVIDER: no such setting; did you mean LLMGINE_PROVIDER__NAME?",
        ),
        (
            "LLMGINE_PROVIDER__OPTIONS",
            "LLMGINE_PROVIDER__OPTIONS: no such setting; give each key a variable of its own, LLM",
        ),
        ("LLMGINE_", "LLMGINE_: no such setting; there are LLMGINE_BUDGET, LLMGINE_BUS,"),
    ],
)
def test_an_unknown_variable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    monkeypatch.setenv(name, "1")
    text = wrong()
    assert text.startswith(line)
    assert text.endswith("(the environment)")


def test_several_wrong_settings_are_a_line_each() -> None:
    lines = wrong(bus={"threads": "x"}, console={"enabled": 3}, file={"backups": -1}).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "console.enabled",
        "file.backups",
        "bus.threads",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"provider": {"options": {"anything": 31337}}},
        {"provider": {"api_key": "31337"}},
        {"bus": {"threads": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH31337"}},
    ],
)
def test_a_secret_is_never_shown(values: dict[str, object]) -> None:
    assert "31337" not in wrong(..., **values)


def test_what_was_found_is_shown_on_one_line_and_cut() -> None:
    text = wrong(bus={"threads": "a\nb" + "x" * 200})
    assert "\n" not in text
    assert len(text) < 200


def test_the_process_exits_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_wrong_settings():
        ApplicationConfig(bus={"threads": "x"})
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "bus.threads: expected a whole number, found 'x' (given in code)\n"


def test_other_errors_and_none_go_through() -> None:
    with exit_on_wrong_settings():
        pass
    with pytest.raises(ZeroDivisionError), exit_on_wrong_settings():
        raise ZeroDivisionError
