"""Stands in for uv where many updates render the same: each version is rendered once, by Copier.

`tools/spine` runs what the variable UV names. Renders are kept in the folder RENDERS.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["stand_in"]


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
