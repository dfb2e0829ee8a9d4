"""Renders that take less time: many that are the same once, and each with less work.

`tools/spine` runs what the variable UV names: here what renders each version once, by Copier, and
keeps it in the folder RENDERS.
"""

import hashlib
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["quick_copier", "stand_in"]

RENDER = Path(__file__).parent.parent / "template/tools/spine/render.py"


@contextmanager
def quick_copier() -> Generator[None]:
    """Copier as `tools/spine` has it: it renders the same in a quarter of the time."""
    # The program below starts for every update.
    import pytest

    changed = {
        "jinja2.Environment": ["from_string"],
        "copier._main.Worker": [
            "_render_string",
            "_sync_git_index_executable_bit",
            "answers_relpath",
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        for path, names in changed.items():
            module, _, name = path.rpartition(".")
            owner = getattr(importlib.import_module(module), name)
            for each in names:
                patch.setattr(owner, each, getattr(owner, each))
        runpy.run_path(str(RENDER))["quicken"]()
        yield


def stand_in(folder: Path) -> dict[str, str]:
    """Variables under which `tools/spine` renders each version once."""
    program = folder / "uv"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', "utf-8")
    program.chmod(0o755)
    return {"UV": str(program), "RENDERS": str(folder)}


def _render(request: dict[str, Any], render: dict[str, Any], script: str) -> None:
    place = Path(render["folder"])
    answers = (place / request["answers_file"]).read_text("utf-8")
    key = json.dumps([answers, render["version"], render["data"]])
    kept = Path(os.environ["RENDERS"]) / hashlib.sha256(key.encode()).hexdigest()
    if not kept.is_dir():
        alone = json.dumps({**request, "renders": [render]})
        subprocess.run([sys.executable, script], input=alone, text=True, check=True)  # noqa: S603
        shutil.copytree(place, kept, symlinks=True)
    shutil.copytree(kept, place, symlinks=True, dirs_exist_ok=True)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    for one in asked["renders"]:
        _render(asked, one, sys.argv[-1])
