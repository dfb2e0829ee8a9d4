"""Every member of the workspace is known to the checks."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
MEMBERS = {
    settings.parent.name
    for folder in ("libs", "apps")
    for settings in (ROOT / folder).glob("*/pyproject.toml")
}


def test_import_rules_cover_every_member() -> None:
    assert set(TOOLS["importlinter"]["root_packages"]) == MEMBERS


def test_the_root_knows_every_member_as_a_source() -> None:
    assert set(TOOLS["uv"]["sources"]) == MEMBERS
