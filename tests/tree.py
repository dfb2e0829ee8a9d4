"""A project's files, for comparing one with another."""

from pathlib import Path

__all__ = ["files"]


def files(project: Path) -> dict[str, bytes]:
    """Every file of a project with its content, but git's own and bytecode."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not {".git", "__pycache__"} & {*path.relative_to(project).parts}
    }
