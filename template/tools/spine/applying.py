"""A merge written into the project, and taken back or finished after its conflicts."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from merging import Outcome
from project import Git, Project, SpineError, index_info

__all__ = ["State", "abort", "finish", "write"]

_BEFORE = "before"
_GONE = ("0", "0" * 40)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is written down while an update isn't finished.

    Attributes:
        head: the commit that it began from.
        target: the version that it brings.
        baseline: the files that say which version the project has, as they will be.
        touched: every file that it writes.
        conflicts: the files that wait for somebody.
    """

    head: str
    target: str
    baseline: Mapping[str, str]
    touched: Sequence[str] = ()
    conflicts: Sequence[str] = ()

    @classmethod
    def of(cls, head: str, target: str, baseline: Mapping[str, bytes]) -> "State":
        """The state before anything is written."""
        texts = {path: content.decode() for path, content in baseline.items()}
        return cls(head=head, target=target, baseline=texts)

    @classmethod
    def read(cls, project: Project) -> "State":
        """What was written down.

        Raises:
            SpineError: no update is unfinished.
        """
        try:
            return cls(**json.loads((project.state / "state.json").read_text("utf-8")))
        except FileNotFoundError:
            if not project.state.exists():
                raise SpineError("no update is unfinished") from None
        # The folder is made first, and filled before any other file is touched.
        shutil.rmtree(project.state)
        raise SpineError("an update was cut off before it changed anything: try again")

    def unfinished(self) -> str:
        """What to tell about an update that waits."""
        return (
            f"the update to {self.target} is unfinished: run `python tools/spine finish` once the"
            " conflicts are resolved, or `python tools/spine abort`"
        )


def write(
    project: Project, git: Git, start: tuple[str, str], outcome: Outcome, state: State
) -> None:
    """Write a merge into the project; until it is whole, `abort` takes it back.

    Args:
        project: the project, all of it committed.
        git: with an index of its own.
        start: the commit to start from, and the project's tree in it.
        outcome: the merge.
        state: what to write down.
    """
    head, ours = start
    tree = outcome.tree
    if outcome.conflicts:
        # The project is made from the old version until somebody has looked at the conflicts.
        tree = _with_old(git, tree, ours, [*state.baseline])
    touched = git.listed("diff-tree", "-r", "-z", "--name-only", "--no-renames", ours, tree)
    _refuse_collisions(project, ours, touched)
    everything = sorted({*touched, *outcome.conflicts, *state.baseline})
    _begin(project, replace(state, touched=everything, conflicts=[*outcome.conflicts]))
    project.git.run("update-index", "-q", "--refresh")
    Git(folder=project.top)("read-tree", "-m", "-u", head, _rooted(project, head, tree))
    if not outcome.conflicts:
        shutil.rmtree(project.state)
        return
    stages = [
        (mode, name, stage, path)
        for path, sides in outcome.conflicts.items()
        for stage, (mode, name) in [(0, _GONE), *sides.items()]
    ]
    _index(project, stages)


def _index(project: Project, entries: Sequence[tuple[str, str, int, str]]) -> None:
    """Write entries into the repository's index, as a merge would."""
    at_top = [(mode, name, stage, project.prefix + path) for mode, name, stage, path in entries]
    project.git("update-index", "-z", "--index-info", data=index_info(at_top))


def _with_old(git: Git, tree: str, ours: str, paths: Sequence[str]) -> str:
    """A tree with the old entries of some files."""
    git("read-tree", tree)
    old = git("ls-tree", "-r", "-z", "--full-tree", ours, "--", *paths)
    git("update-index", "-z", "--index-info", data=old.encode(errors="surrogateescape"))
    return git("write-tree")


def _rooted(project: Project, head: str, tree: str) -> str:
    """The repository's tree with the project's part replaced."""
    inner = project.prefix.rstrip("/")
    while inner:
        outer, _, name = inner.rpartition("/")
        listed = project.git.listed("ls-tree", "-z", "--full-tree", f"{head}:{outer}")
        kept = [line for line in listed if line.partition("\t")[2] != name]
        entries = "".join(f"{line}\0" for line in [*kept, f"040000 tree {tree}\t{name}"])
        tree = project.git("mktree", "-z", data=entries.encode(errors="surrogateescape"))
        inner = outer
    return tree


def _refuse_collisions(project: Project, ours: str, touched: Sequence[str]) -> None:
    """A file that git ignores has no copy anywhere: it isn't written over."""
    known = {*project.git.listed("ls-tree", "-r", "-z", "--name-only", "--full-tree", ours)}
    for path in touched:
        if path not in known and os.path.lexists(project.root / path):
            raise SpineError(
                f"the update brings {path}, and a file of that name lies there that git ignores:"
                " move it away, then try again"
            )


def _begin(project: Project, state: State) -> None:
    """Write down what it takes to finish or to abort."""
    try:
        project.state.mkdir(parents=True)
    except FileExistsError:
        raise SpineError("another update is at work, see `python tools/spine status`") from None
    for path in _present(project, state.touched):
        kept = project.state / _BEFORE / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project.root / path, kept, follow_symlinks=False)
    # Written last, and whole: from here on there is something to abort.
    draft = project.state / "draft"
    draft.write_text(json.dumps(asdict(state)), "utf-8")
    draft.replace(project.state / "state.json")


def _present(project: Project, paths: Sequence[str]) -> Iterator[str]:
    return (path for path in paths if os.path.lexists(project.root / path))


def finish(project: Project) -> State:
    """Record the new version once all conflicts are resolved.

    Raises:
        SpineError: no update is unfinished, or a conflict isn't resolved.
    """
    state = State.read(project)
    for path in _present(project, state.conflicts):
        if _is_marked(project.root / path):
            raise SpineError(f"{path} still has conflict marks: resolve them, then try again")
    unmerged = {
        line.partition("\t")[2]
        for line in project.git.listed("ls-files", "-z", "--unmerged", "--", ".")
    }
    undecided = sorted(unmerged - {*_marked_before(project, state)})
    if undecided:
        raise SpineError(
            f"{undecided[0]} isn't decided: `git add` or `git rm` it, then try again"
            + (f" ({len(undecided) - 1} more)" if len(undecided) > 1 else "")
        )
    for path, text in state.baseline.items():
        (project.root / path).write_text(text, "utf-8", newline="\n")
    project.git("add", "--", *state.baseline, *sorted(unmerged))
    shutil.rmtree(project.state)
    return state


def _is_marked(path: Path) -> bool:
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return any(line.startswith((b"<<<<<<< ", b">>>>>>> ")) for line in lines)


def _marked_before(project: Project, state: State) -> Iterator[str]:
    """Conflicts that showed as marks in a file: once those are gone, it is decided."""
    for path in state.conflicts:
        stages = project.git.listed("ls-files", "-z", "--unmerged", "--", path)
        numbers = {line.split()[2] for line in stages}
        blobs = [project.git.blob(line.split()[1]) for line in stages]
        if {"2", "3"} <= numbers and not any(b"\0" in blob for blob in blobs):
            yield path


def abort(project: Project) -> State:
    """Take an unfinished update back: every file that it wrote is as it was before.

    Raises:
        SpineError: no update is unfinished, or something was committed since.
    """
    state = State.read(project)
    if project.git("rev-parse", "HEAD") != state.head:
        raise SpineError(
            f"something was committed since the update began: go back with"
            f" `git reset --soft {state.head}`, then try again"
        )
    for path in _present(project, state.touched):
        _remove(project.root, path)
    for path in state.touched:
        kept = project.state / _BEFORE / path
        if os.path.lexists(kept):
            (project.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept, project.root / path, follow_symlinks=False)
    listed = project.git.listed(
        "ls-tree", "-r", "-z", "--full-tree", f"{state.head}:{project.prefix}"
    )
    old = {path: line.split()[:3] for line in listed for path in [line.partition("\t")[2]]}
    gone = [(*_GONE, 0, path) for path in state.touched]
    kept = [(old[path][0], old[path][2], 0, path) for path in state.touched if path in old]
    _index(project, [*gone, *kept])
    project.git.run("update-index", "-q", "--refresh")
    shutil.rmtree(project.state)
    return state


def _remove(root: Path, path: str) -> None:
    """Remove a file, and the folders that it leaves empty."""
    place = root / path
    if place.is_dir() and not place.is_symlink():
        return
    place.unlink()
    with suppress(OSError):
        for folder in place.parents:
            if folder == root:
                break
            folder.rmdir()
