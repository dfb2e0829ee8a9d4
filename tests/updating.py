"""Projects that are updated through Copier's public functions, as without trust."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier import run_copy, run_update

from tests.conftest import commit, git
from tests.tree import files

__all__ = ["Project"]


@dataclass(frozen=True, kw_only=True)
class Project:
    """A committed project that remembers where it came from."""

    folder: Path

    @classmethod
    def copied(cls, template: Path, folder: Path, **data: Any) -> "Project":
        """Render a template's checkout into a folder, and commit."""
        run_copy(
            str(template),
            folder,
            data=data,
            defaults=True,
            quiet=True,
            vcs_ref="HEAD",
            unsafe=False,
        )
        commit(folder)
        return cls(folder=folder)

    def update(self, **data: Any) -> None:
        """Update to the template's checkout with other answers, and commit."""
        how: dict[str, Any] = {"defaults": True, "quiet": True, "unsafe": False}
        run_update(self.folder, data=data, vcs_ref="HEAD", overwrite=True, **how)
        commit(self.folder)

    def files(self) -> dict[str, bytes]:
        """Every file with its content."""
        return files(self.folder)

    def conflicts(self) -> list[str]:
        """Files with conflict marks in them, and hunks that were rejected."""
        marked = [path for path, text in self.files().items() if b"<<<<<<< before" in text]
        return marked + [path for path in self.files() if path.endswith(".rej")]

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file as its owner would, and commit."""
        text = (self.folder / path).read_text("utf-8")
        assert old in text
        (self.folder / path).write_text(text.replace(old, new), "utf-8")
        git(self.folder, "commit", "--quiet", "--all", "--message", f"Edit {path}")
