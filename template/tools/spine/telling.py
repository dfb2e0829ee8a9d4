"""What an update tells: what became of each change, and what to do next."""

from merging import Change
from project import Project
from updating import Update

__all__ = ["told"]


def told(project: Project, done: Update, *, dry_run: bool) -> list[str]:
    """What to tell of an update, line by line."""
    if done.outcome is None:
        return [f"Nothing to do: the project has {done.new}."]
    changes = done.outcome.changes
    counts = ", ".join(
        f"{sum(change.outcome == outcome for change in changes)} {outcome}"
        for outcome in ("landed", "conflicted", "skipped")
    )
    plain = [change for change in changes if change.outcome == "landed" and not change.yours]
    more = [f"  landed      {_files(len(plain))} that you had not changed"] if plain else []
    return [
        f"llmgine {done.old} -> {done.new}: {_files(len(changes))}: {counts}",
        *(_line(change) for change in changes if change not in plain),
        *more,
        *(f"  brings      {fix.id}: {fix.title}" for fix in done.fixes),
        *_next_steps(project, done, dry_run=dry_run),
    ]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _line(change: Change) -> str:
    detail = f": {change.detail}" if change.detail else ""
    return f"  {change.outcome:<10}  {change.path}{detail}"


def _next_steps(project: Project, done: Update, *, dry_run: bool) -> list[str]:
    """What to do after an update."""
    outcome = done.outcome
    if dry_run or outcome is None:
        return ["A dry run: nothing has changed."]
    if outcome.conflicts:
        return [
            "Resolve the conflicts (`git status` lists them), then `python tools/spine finish`;",
            "or take all of it back with `python tools/spine abort`.",
        ]
    lock = ["Run `uv lock`, since dependencies may have changed."]
    paths = [change.path for change in outcome.changes]
    locks = any(path.endswith("pyproject.toml") for path in paths)
    return [
        *(lock if locks and (project.root / "uv.lock").exists() else []),
        "Staged, not committed: look with `git diff --staged`, run your checks, and commit.",
    ]
