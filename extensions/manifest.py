"""The manifest of the spine: its version, the answers and the git blob id of every spine file.

It is rendered into every project, where later updates tell by it what the team has edited. Spine
files are copied as they are, so their ids are known before a project exists. The answers' digest
leaves out where the template lies, which may change, as `tools/spine` does.
"""

import hashlib
import json
import tomllib
from pathlib import Path

from extensions.questionnaire import ROOT, TEMPLATE, conditions, template_files

__all__ = ["MANIFEST", "blob_id", "manifest", "spine_files", "version"]

MANIFEST = "tools/spine/manifest.json.jinja"
SPINE = ("libs/llmgine/", "tools/spine/")
ANSWERS = """\
{
    "file": {{ _copier_conf.answers_file | string | to_json }},
    "sha1": "{{ dict(_copier_answers | dictsort | rejectattr(0, 'equalto', '_src_path'))
      | to_nice_yaml | hash('sha1') }}"
  }"""


def version() -> str:
    """The template's own version."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def blob_id(path: Path) -> str:
    """The id under which git keeps a file's content."""
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def spine_files() -> list[str]:
    """The paths of the spine's files, the optional ones too."""
    return [path for path in template_files() if path.startswith(SPINE) and path != MANIFEST]


def _line(path: str, *, first: bool) -> str:
    entry = (
        f"{'' if first else ','}\n    {json.dumps(path)}: {json.dumps(blob_id(TEMPLATE / path))}"
    )
    left_out = " or ".join(f"({condition})" for condition in conditions(path))
    return f"{{% if not ({left_out}) %}}{entry}{{% endif %}}" if left_out else entry


def manifest() -> str:
    """The manifest as a template: optional files stand under the conditions of `copier.yml`."""
    always_first = sorted(spine_files(), key=lambda path: (any(conditions(path)), path))
    lines = "".join(_line(path, first=not at) for at, path in enumerate(always_first))
    head = f'"version": {json.dumps(version())},\n  "answers": {ANSWERS}'
    return f'{{\n  {head},\n  "files": {{{lines}\n  }}\n}}\n'
