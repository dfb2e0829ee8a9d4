# Run with `uv run just`: nothing to install first.

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# The tests that projects receive.
shipped := "template/libs template/apps template/tests/test_docs.py template/tests/test_guides.py"

# Four at once even on two cores: they wait as long as they work, for programs and answers.
at_once := "--numprocesses 4"

# List the recipes.
default:
    @just --list

# Everything short: what a change must pass.
check: lint types imports dependencies test

# Style and formatting.
lint:
    uv run ruff check
    uv run ruff format --check

# Repair what can be repaired.
fix:
    uv run ruff check --fix
    uv run ruff format

# Strict types, tests included, and the typing tests under a second checker.
types:
    uv run pyright --project pyproject.toml
    uv run mypy template/libs/llmgine/tests/typing

# Who may import whom.
imports:
    uv run lint-imports

# Every member asks for the packages that it imports, and for no others (some: by name).
dependencies:
    uv run deptry template/libs/llmgine/src --config template/libs/llmgine/pyproject.toml -pri "DEP002=litellm|xllamacpp|opentelemetry-exporter-otlp"
    uv run deptry template/libs/assistant/src --config template/libs/assistant/pyproject.toml -pri DEP002=tzdata
    uv run deptry template/apps/api/src --config template/apps/api/pyproject.toml
    uv run deptry template/apps/chat/src --config template/apps/chat/pyproject.toml
    uv run deptry template/apps/discord_bot/src --config template/apps/discord_bot/pyproject.toml
    uv run deptry template/apps/mcp_server/src --config template/apps/mcp_server/pyproject.toml

# The short tests; arguments go to pytest (`-n 0`: one after the other, for a debugger).
test *arguments:
    uv run pytest -m "not heavy and not matrix" {{ at_once }} --dist loadfile {{ arguments }}

# The long ones: whole projects, rendered and checked.
heavy *arguments:
    uv run pytest -m heavy --numprocesses 3 --dist loadfile {{ arguments }}

# Every pair of choices as a project that passes its own checks, on the oldest and newest Python.
matrix *arguments:
    uv run pytest -m matrix --numprocesses 2 --dist loadscope {{ arguments }}

# The members' own tests on another Python, as in `just on 3.13`.
on python *arguments:
    uv run --isolated --python {{ python }} pytest -q {{ at_once }} --dist loadfile {{ arguments }} {{ shipped }}

# The same with branch coverage of the spine.
coverage python="3.13":
    just on {{ python }} --cov --cov-report=term

# Write what is made from something else: manifest, settings of the checks, table of questions.
generate:
    uv run python -m extensions
