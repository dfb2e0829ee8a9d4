"""What the page on providers says of options and abilities is what the providers do."""

import re
import tomllib
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import ChatMessage, LLMProvider, LLMRequest, MediaPart, ToolDefinition
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, Reasoning
from llmgine.errors import ConfigurationError, InvalidRequestError, ProviderError
from llmgine.providers import ScriptedProvider
from llmgine.providers.anthropic import AnthropicProvider
from llmgine.providers.openai import OpenAIProvider
from llmgine.settings import ProviderSettings
from llmgine.testing.loopback import LoopbackServer, Reply

from extensions.questionnaire import ROOT

PAGE = (ROOT / "template" / "docs" / "providers.md").read_text("utf-8")
ASKED = LLMRequest(messages=(ChatMessage.user("Hello"),))
TOOL: ToolDefinition = {
    "type": "function",
    "function": {"name": "look", "description": "", "parameters": {}},
}


def table(section: str) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line] for line in lines[2:]]


def documented_options() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    before: list[str] = []
    for options, of, _ in table("Options"):
        before = before if of == "the same" else of.split(", ")
        for name in before:
            found.setdefault(name, set()).update(options.split(", "))
    return found


@pytest.mark.parametrize("name", ["anthropic", "litellm", "local", "openai", "scripted"])
def test_the_options_of_the_page_are_those_of_the_provider(name: str) -> None:
    build = vars(import_module(f"llmgine.providers.{name}"))["build"]
    with pytest.raises(ConfigurationError) as caught:
        build(ProviderSettings(name=name, options={"nonsense": "1"}))
    known = re.findall(r"`(\w+)`", str(caught.value))
    assert set(known) == documented_options()[name]


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_the_models_of_the_page_are_those_that_are_asked(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "k")
    build = vars(import_module(f"llmgine.providers.{name}"))["build"]
    async with LoopbackServer(Reply(status=500)) as server:
        settings = ProviderSettings(name=name, options={"base_url": server.url})
        async with build(settings) as provider:
            assert await is_taken(provider, ASKED)
    assert f"`{name}` asks `{server.heard[0].json()['model']}`" in PAGE


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_settings_of_the_page_can_be_read(tmp_path: Path, example: str) -> None:
    (tmp_path / "settings.toml").write_text(example, "utf-8")
    config = ApplicationConfig(settings_file=tmp_path / "settings.toml")
    assert config.provider.name == tomllib.loads(example)["provider"]["name"]


def media(kind: str) -> dict[str, LLMRequest]:
    """Return requests with a medium in each form that it can have."""
    picture = MediaPart(kind="image", data=b"x", media_type="image/png")
    document = MediaPart(kind="document", data=b"x", media_type="application/pdf")
    sound = MediaPart(kind="audio", data=b"x", media_type="audio/wav")
    part = {"images": picture, "documents": document, "sound": sound}[kind]
    forms = {
        "data": part,
        "URL": replace(part, data=None, url="https://x/y"),
        "file id": replace(part, data=None, file_id="f"),
    }
    return {
        form: replace(ASKED, messages=(ChatMessage.user(each),)) for form, each in forms.items()
    }


REQUESTS: dict[str, dict[str, LLMRequest]] = {
    "tools and their results": {"": replace(ASKED, tools=(TOOL,))},
    "images": media("images"),
    "documents": media("documents"),
    "sound": media("sound"),
    "response_format": {
        "schema": replace(ASKED, response_format=JsonSchemaFormat(name="x", schema={})),
        "any JSON": replace(ASKED, response_format=JsonObjectFormat()),
    },
    "reasoning": {
        "effort": replace(ASKED, reasoning=Reasoning(effort="low")),
        "budget_tokens": replace(ASKED, reasoning=Reasoning(budget_tokens=2000)),
        "summary": replace(ASKED, reasoning=Reasoning(summary="auto")),
    },
    "temperature, top_p": {"": replace(ASKED, temperature=0.5), " ": replace(ASKED, top_p=0.5)},
    "top_k": {"": replace(ASKED, top_k=5)},
    "seed, penalties": {
        "": replace(ASKED, seed=1),
        " ": replace(ASKED, presence_penalty=0.5),
        "  ": replace(ASKED, frequency_penalty=0.5),
    },
    "user_id": {"": replace(ASKED, user_id="ada")},
    "metadata": {"": replace(ASKED, metadata={"a": "b"})},
}


async def is_taken(provider: LLMProvider, request: LLMRequest) -> bool:
    try:
        await provider.complete(request)
    except InvalidRequestError:
        return False
    except ProviderError:
        pass  # the server of this test has no answer
    return True


async def test_what_the_page_says_a_provider_can_do_it_takes_and_it_refuses_the_rest() -> None:
    rows = {row[0]: row[1:] for row in table("What each can do")}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(LoopbackServer(Reply(status=500)))
        gpt = OpenAIProvider(api_key="k", base_url=server.url)
        claude = AnthropicProvider(api_key="k", base_url=server.url)
        providers: list[tuple[int, LLMProvider]] = [
            (0, await stack.enter_async_context(gpt)),
            (1, await stack.enter_async_context(claude)),
            (4, ScriptedProvider()),
        ]
        wrong = [
            (row, provider.name, form)
            for row, forms in REQUESTS.items()
            for column, provider in providers
            for form, request in forms.items()
            if await is_taken(provider, request) != said(rows[row][column], form)
        ]
    assert not wrong


def said(cell: str, form: str) -> bool:
    """Tell whether a cell of the table says that a form is taken."""
    return cell in {"yes", "ignored"} or form in cell.split(", ")
