from pathlib import Path

import pytest
from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import ChatMessage, LLMProvider, LLMRequest
from llmgine.errors import ConfigurationError
from llmgine.testing.provider_suite import ProviderSuite
from llmgine_faq import FaqProvider, build

ANSWERS = {"How do I reset my password?": "Under Settings.", "Say hello.": "Hello there!"}


class TestFaqProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return FaqProvider(ANSWERS)


async def test_a_question_that_is_nearly_known_is_answered() -> None:
    request = LLMRequest(messages=(ChatMessage.user("how do i reset the password"),))
    assert (await FaqProvider(ANSWERS).complete(request)).text == "Under Settings."


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    options = {"file": str(tmp_path / "none.toml")}
    config = ApplicationConfig(settings_file=None, provider={"options": options})
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        build(config)
