"""The API keeps what its OpenAPI description says, whatever it is sent: tried by schemathesis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.api_program import running_api

# No answer is a 500, each has a status, a type and a body that the description names, and what
# the description rules out is refused. That a valid request is accepted is for other tests: some
# are refused for what the schema can't say, such as a conversation that has no such message.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        pytest.param("fuzzing", 3, id="short"),
        pytest.param(
            "coverage,fuzzing,stateful",
            20,
            id="long",
            marks=[pytest.mark.heavy, pytest.mark.timeout(600)],
        ),
    ],
)
def test_the_api_keeps_its_description(tmp_path: Path, phases: str, examples: int) -> None:
    with running_api(tmp_path) as api:
        done = subprocess.run(  # noqa: S603 - a tool of ours
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json"),
                *("--phases", phases, "--max-examples", str(examples), "--checks", CHECKS),
                *("--seed", "7", "--generation-database", "none", "--request-timeout", "50"),
                *("--exclude-path-regex", "events$", "--no-color"),  # which end at no time
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in api.errors.read_text()
