"""What backends that others have made say they were sent by an application."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Phoenix, converse, free_port, running

TREE = {
    "process RunTurn": {None},
    "chat scripted": {"process RunTurn"},
    "execute_tool calculate": {"process RunTurn"},
}
METRICS = {
    "gen_ai.client.operation.duration",
    "gen_ai.client.token.usage",
    "gen_ai.execute_tool.duration",
    "messaging.process.duration",
}

SPAN = re.compile(r"Parent ID +: (\w*)\n +ID +: (\w+)\n +Name +: (.+)\n")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(sys.platform == "win32", reason="the backends are run on Linux and macOS"),
]


def tree(spans: list[tuple[str, str, str | None]]) -> dict[str, set[str | None]]:
    """Each name's parents' names, from names, ids and parents' ids."""
    names = {span_id: name for name, span_id, _ in spans}
    found: dict[str, set[str | None]] = {}
    for name, _, parent in spans:
        found.setdefault(name, set()).add(names.get(parent, "elsewhere") if parent else None)
    return found


@pytest.mark.timeout(300)
def test_oteltap_over_http(tmp_path: Path) -> None:
    port = free_port()

    def arrived() -> list[dict[str, Any]] | None:
        lines = tap.text.rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        whole = sum("kind" in each for each in found) == 4 and any(
            each.get("body") == {"stringValue": "SessionEndEvent"} for each in found
        )
        return found if whole and {each.get("name") for each in found} >= METRICS else None

    with running("oteltap", "oteltap", "--port", str(port), folder=tmp_path) as tap:
        tap.listening(port)
        assert "84" in converse(tmp_path, f"http://127.0.0.1:{port}")
        found = tap.until(arrived)
    spans = [each for each in found if "kind" in each]
    assert len(spans) == 4
    assert len({each["traceId"] for each in spans}) == 1
    assert tree([(it["name"], it["spanId"], it["parentSpanId"]) for it in spans]) == TREE
    bodies = [each["body"]["stringValue"] for each in found if "body" in each]
    assert [bodies[0], bodies[-1]] == ["SessionStartEvent", "SessionEndEvent"]


@pytest.mark.timeout(300)
def test_rotel_over_grpc(tmp_path: Path) -> None:
    port = free_port()
    agent = "import os, rotel, sys; os.execv(rotel.__path__[0] + '/rotel-agent', sys.argv[1:])"
    options = {
        "ROTEL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{port}",
        "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{free_port()}",
        "ROTEL_EXPORTER": "blackhole",
        "ROTEL_DEBUG_LOG": "traces",
        "ROTEL_DEBUG_LOG_VERBOSITY": "detailed",
    }
    command = ["python", "-c", agent, "rotel-agent", "start"]

    def arrived() -> list[tuple[str, str, str | None]] | None:
        found = SPAN.findall(rotel.text)
        return [(name, own, parent) for parent, own, name in found] if len(found) == 4 else None

    with running("rotel", *command, folder=tmp_path, **options) as rotel:
        rotel.listening(port)
        assert "84" in converse(tmp_path, f"http://127.0.0.1:{port}", protocol="grpc")
        spans = rotel.until(arrived)
        assert "service.name: Str(my-app)" in rotel.text
    assert tree(spans) == TREE


@pytest.mark.timeout(900)
def test_phoenix_shows_a_conversation_with_its_tool(tmp_path: Path) -> None:
    with Phoenix(tmp_path).running() as phoenix:
        converse(tmp_path, phoenix.endpoint, content="true", metrics="false", logs="false")
        spans = phoenix.spans(4)
    found = [(each["name"], each["context"]["span_id"], each["parent_id"]) for each in spans]
    assert tree(found) == TREE
    kinds = {each["name"]: each["span_kind"] for each in spans}
    assert (kinds["chat scripted"], kinds["execute_tool calculate"]) == ("LLM", "TOOL")
    assert {each["attributes"]["session.id"] for each in spans} == {"a-chat"}
    (tool,) = (each["attributes"] for each in spans if each["span_kind"] == "TOOL")
    assert tool["output.value"] == "84"
    asked = [each["attributes"] for each in spans if each["span_kind"] == "LLM"]
    assert all(each["llm.token_count.prompt"] > 0 for each in asked)
    assert {each["llm.input_messages.0.message.content"] for each in asked} == {
        "What is 12 * (3 + 4)?"
    }
