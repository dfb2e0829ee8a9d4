"""What the providers' own packages say of the tools' definitions; they are fetched for this."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(600), pytest.mark.heavy]

SPINE = Path(__file__).parents[1] / "template" / "libs" / "llmgine"
PACKAGES = ("openai", "anthropic", "jsonschema", "pytest")

# Runs elsewhere, beside the table of types in the spine's own tests.
CHECK = """
import test_types
from anthropic.types import ToolParam
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletionToolParam
from pydantic import TypeAdapter

openai, anthropic = TypeAdapter(ChatCompletionToolParam), TypeAdapter(ToolParam)
for kind, _, fitting, unfitting in test_types.TYPES:
    manager, _ = test_types.tool_of(kind)
    for strict in (False, True):
        (tool,) = manager.get_tools(strict=strict)
        function = tool["function"]
        parameters = function["parameters"]
        openai.validate_python(dict(tool))
        wire = {"name": function["name"], "input_schema": parameters}
        anthropic.validate_python({**wire, "description": function["description"]})
        Draft202012Validator.check_schema(parameters)
    validator = Draft202012Validator(manager.get_tools()[0]["function"]["parameters"])
    # What is taken although the schema has it otherwise: the same member of a set twice.
    for sent, _ in fitting:
        assert sent == ["a", "a"] or validator.is_valid({"value": sent}), (kind, sent)
print("all", len(test_types.TYPES))
"""


def test_the_providers_packages_accept_the_definition_of_every_type() -> None:
    command = ["uv", "run", "--no-project", "--isolated", "--with-editable", str(SPINE)]
    for package in PACKAGES:
        command += ["--with", package]
    command += ["python", "-c", CHECK]
    folder = SPINE / "tests" / "tools"
    done = subprocess.run(  # noqa: S603
        command, check=False, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all ")
