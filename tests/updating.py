"""Releases of the template, and projects that are updated to them: by Copier, and by tools/spine.

Copier runs through its public functions, as without trust; `tools/spine` as a program.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier import run_copy, run_update

from tests.conftest import commit, git
from tests.tree import files

__all__ = ["Project", "Releases", "sample", "steps"]

SAMPLES = "libs/llmgine/samples"
_MANIFEST = """\
from extensions.manifest import MANIFEST, manifest
from extensions.questionnaire import TEMPLATE
(TEMPLATE / MANIFEST).write_text(manifest(), "utf-8", newline="\\n")
"""


def sample(name: str) -> str:
    """The path of a spine file that only these tests' releases have."""
    return f"{SAMPLES}/{name}.py"


def steps(fixed: Mapping[int, str] | None = None, count: int = 12) -> str:
    """Python with a function a step, far enough apart for git to merge changes to two of them."""
    values = {step: f"value + {step}" for step in range(count)} | dict(fixed or {})
    return "\n\n".join(
        f'def step_{step}(value: int) -> int:\n    """Take step {step}."""\n    return {result}\n'
        for step, result in values.items()
    )


@dataclass(frozen=True, kw_only=True)
class Releases:
    """A copy of the template's repository, to release further versions in."""

    folder: Path

    @classmethod
    def of(cls, template: Path, folder: Path) -> "Releases":
        """Begin with version 0.1.0: the template as it is, and some samples."""
        releases = cls(folder=shutil.copytree(template, folder))
        for name in ("alpha", "beta", "gamma", "delta", "omega"):
            releases.write(sample(name), f'"""{name}."""\n\n\n{steps()}')
        releases.write(f"{SAMPLES}/image.bin", b"\0first\n")
        releases.release("v0.1.0")
        return releases

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file of the template."""
        place = self.folder / "template" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def text(self, path: str) -> str:
        """A file's text."""
        return (self.folder / "template" / path).read_text("utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the template."""
        text = self.text(path)
        assert old in text
        self.write(path, text.replace(old, new, 1))

    def append(self, path: str, text: str) -> None:
        """Add to a file of the template."""
        self.write(path, self.text(path) + text)

    def remove(self, path: str) -> None:
        """Remove a file of the template."""
        (self.folder / "template" / path).unlink()

    def rename(self, old: str, new: str) -> None:
        """Rename a file of the template."""
        (self.folder / "template" / old).rename(self.folder / "template" / new)

    def release(self, version: str) -> None:
        """Commit and tag what was changed, with a manifest that fits."""
        git(self.folder, "add", "--all")
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        subprocess.run(  # noqa: S603 - this Python
            [sys.executable, "-c", _MANIFEST], cwd=self.folder, env=environment, check=True
        )
        commit(self.folder, f"Version {version}")
        git(self.folder, "tag", version)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A committed project that remembers where it came from."""

    folder: Path

    @classmethod
    def copied(
        cls,
        template: Path,
        folder: Path,
        *,
        version: str = "HEAD",
        answers_file: str | None = None,
        **data: Any,
    ) -> "Project":
        """Render a template's checkout, or a version of it, into a folder, and commit."""
        how: dict[str, Any] = {"defaults": True, "quiet": True, "unsafe": False}
        run_copy(
            str(template), folder, data=data, vcs_ref=version, answers_file=answers_file, **how
        )
        commit(folder)
        return cls(folder=folder)

    def copy(self, folder: Path) -> "Project":
        """The same project once more, with its history."""
        return Project(folder=shutil.copytree(self.folder, folder, symlinks=True))

    def update(self, *, version: str = "HEAD", **data: Any) -> None:
        """Update with Copier to the template's checkout, or a version, and commit."""
        how: dict[str, Any] = {"defaults": True, "quiet": True, "unsafe": False}
        run_update(self.folder, data=data, vcs_ref=version, overwrite=True, **how)
        commit(self.folder)

    def spine(self, *arguments: str, status: int | None = 0) -> str:
        """Run `tools/spine`; what it prints is returned, and its exit status is as expected.

        Without a `status` to expect, it is 0 or 1.
        """
        done = subprocess.run(  # noqa: S603 - this Python
            [sys.executable, str(self.folder / "tools" / "spine"), *arguments],
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        expected = {0, 1} if status is None else {status}
        assert done.returncode in expected, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, bytes]:
        """Every file with its content."""
        return files(self.folder)

    def conflicts(self) -> list[str]:
        """Files with conflict marks in them, and hunks that were rejected."""
        marked = [path for path, text in self.files().items() if b"<<<<<<< before" in text]
        return marked + [path for path in self.files() if path.endswith(".rej")]

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file as its owner would, without a commit."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def text(self, path: str) -> str:
        """A file's text, line ends as they are."""
        return (self.folder / path).read_bytes().decode()

    def change(self, path: str, old: str, new: str) -> None:
        """Change a file as its owner would, without a commit."""
        text = self.text(path)
        assert old in text, path
        self.write(path, text.replace(old, new, 1))

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file as its owner would, and commit."""
        self.change(path, old, new)
        self.commit()

    def commit(self) -> None:
        """Commit all that was changed."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "Our work")
