"""A merge written into the project, and taken back or finished after its conflicts."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from merging import Outcome
from project import GONE, Git, Project, SpineError, index_info

__all__ = ["State", "abort", "aborted", "finish", "refuse_lock", "write"]

_BEFORE = "before"
_AFTER = "after"
_STATE = "state.json"
_MARKS = re.compile(rb"^(?:<{7} |>{7} |<+ yours-since-|>+ llmgine-)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is written down while an update isn't finished.

    Attributes:
        head: the commit that it began from.
        target: the version that it brings.
        baseline: the files that say which version the project has, as they will be.
        touched: every file that it writes.
        conflicts: the files that wait for somebody.
        marked: those of them that show it by marks.
        whole: whether all of it was written.
    """

    head: str
    target: str
    baseline: Mapping[str, str]
    touched: Sequence[str] = ()
    conflicts: Sequence[str] = ()
    marked: Sequence[str] = ()
    whole: bool = False

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
        if not project.state.exists():
            raise SpineError("no update is unfinished")
        # The version that wrote it may be another one than this.
        known = {field.name for field in fields(cls)}
        try:
            data = json.loads((project.state / _STATE).read_text("utf-8"))
            return cls(**{name: value for name, value in data.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SpineError(
                f"what was written down of an update is damaged ({error}): restore your files with"
                f" git, and remove {project.state}"
            ) from None

    def write(self, folder: Path) -> None:
        """Write it down, at once or not at all."""
        draft = folder / "draft"
        draft.write_text(json.dumps(asdict(self)), "utf-8")
        draft.replace(folder / _STATE)

    def unfinished(self) -> str:
        """What to tell about an update that waits."""
        if not self.whole:
            return (
                f"the update to {self.target} was cut off: take it back with"
                " `python tools/spine abort`, then try again"
            )
        return (
            f"the update to {self.target} is unfinished: run `python tools/spine finish` once the"
            " conflicts are resolved, or `python tools/spine abort`"
        )


def write(
    project: Project, git: Git, start: tuple[str, str], outcome: Outcome, state: State
) -> None:
    """Write a merge into the project; what stops it takes it back, or else `abort` does.

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
    waiting = _marked(git, tree, outcome.conflicts)
    state = replace(state, touched=everything, conflicts=[*outcome.conflicts], marked=waiting)
    _begin(project, state)
    begun = False
    try:
        _refuse_work(project, head)
        top, whole = Git(folder=project.top), _rooted(project, head, tree)
        project.git.run("update-index", "-q", "--refresh")
        top("read-tree", "-n", "-m", "-u", head, whole)
        begun = True
        top("read-tree", "-m", "-u", head, whole)
        if outcome.conflicts:
            _index(project, _stages(outcome))
            replace(state, whole=True).write(project.state)
    except BaseException:
        if begun:
            _restore(project, state)
        _forget(project)
        raise
    if not outcome.conflicts:
        _forget(project)


def _refuse_work(project: Project, head: str) -> None:
    """Rendering takes seconds, and somebody may have gone on working."""
    project.refuse_changes()
    refuse_lock(project)
    if project.git("rev-parse", "HEAD") != head:
        raise SpineError("something was committed while the update was at work: try again")


def refuse_lock(project: Project) -> None:
    """See that no other git has the index.

    Raises:
        SpineError: one has, or was cut off and left its lock.
    """
    lock = project.index.with_name(f"{project.index.name}.lock")
    if lock.exists():
        raise SpineError(
            f"another git is at work here: wait for it, or remove {lock} if none is running,"
            " then try again"
        )


def _marked(git: Git, tree: str, conflicts: Mapping[str, object]) -> list[str]:
    """The conflicts that show as marks in a file: once those are gone, they are decided."""
    listed = git.listed("ls-tree", "-r", "-z", "--full-tree", tree)
    parted = (line.partition("\t") for line in listed)
    blobs = {path: entry.split() for entry, _, path in parted if path in conflicts}
    return [
        path
        for path, (_, kind, name) in blobs.items()
        if kind == "blob" and _MARKS.search(git.blob(name))
    ]


def _stages(outcome: Outcome) -> list[tuple[str, str, int, str]]:
    return [
        (mode, name, stage, path)
        for path, sides in outcome.conflicts.items()
        for stage, (mode, name) in [(0, GONE), *sides.items()]
    ]


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
        found = next(_in_the_way(project.root, path, known), None)
        if found is not None:
            raise SpineError(
                f"the update brings {path}, and {found} lies there that git ignores:"
                " move it away, then try again"
            )


def _in_the_way(root: Path, path: str, known: set[str]) -> Iterator[str]:
    """What has a file's name, or the name of a folder that it is to stand in."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        place = root / name
        if name in known or not os.path.lexists(place):
            return
        if name == path or place.is_symlink() or not place.is_dir():
            yield name
            return


def _begin(project: Project, state: State) -> None:
    """Write down what it takes to finish or to abort: as a whole, and for one update alone."""
    draft = Path(mkdtemp(prefix=f"{project.state.name}-draft-", dir=project.state.parent))
    try:
        for path in _present(project, state.touched):
            if not _is_folder(project.root / path):
                kept = draft / _BEFORE / path
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project.root / path, kept, follow_symlinks=False)
        state.write(draft)
        if project.state.exists():
            raise SpineError("another update is at work, see `python tools/spine status`")
        draft.rename(project.state)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _forget(project: Project, *, keep: bool = False) -> None:
    """Leave what was written down, at once; what an abort removed is kept until the next one."""
    place = aborted(project)
    shutil.rmtree(place, ignore_errors=True)
    project.state.rename(place)
    if not keep:
        shutil.rmtree(place)


def aborted(project: Project) -> Path:
    """Where the files lie that the last abort removed."""
    return project.state.with_name(f"{project.state.name}-aborted")


def _present(project: Project, paths: Sequence[str]) -> Iterator[str]:
    """The files of these that lie in the project; what a link leads to doesn't."""
    for path in paths:
        parents = PurePosixPath(path).parents
        linked = any((project.root / parent).is_symlink() for parent in parents if parent.name)
        if not linked and os.path.lexists(project.root / path):
            yield path


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def finish(project: Project) -> State:
    """Record the new version once all conflicts are resolved.

    Raises:
        SpineError: no update is unfinished, a conflict isn't resolved, or git is at work.
    """
    state = State.read(project)
    refuse_lock(project)
    if not state.whole:
        raise SpineError(state.unfinished())
    for path in _present(project, state.conflicts):
        if _is_marked(project.root / path):
            raise SpineError(f"{path} still has conflict marks: resolve them, then try again")
    unmerged = {
        line.partition("\t")[2]
        for line in project.git.listed("ls-files", "-z", "--unmerged", "--", ".")
    }
    undecided = sorted(unmerged - {*state.marked})
    if undecided:
        raise SpineError(
            f"{undecided[0]} isn't decided: `git add` or `git rm` it, then try again"
            + (f" ({len(undecided) - 1} more)" if len(undecided) > 1 else "")
        )
    _refuse_taken_back(project, state, unmerged)
    for path, text in state.baseline.items():
        (project.root / path).write_text(text, "utf-8", newline="\n")
    project.git("--literal-pathspecs", "add", "--", *state.baseline, *sorted(unmerged))
    _forget(project)
    return state


def _refuse_taken_back(project: Project, state: State, unmerged: set[str]) -> None:
    """After a `git reset --hard` there is no conflict left, but none of the fixes either."""
    apart = {*state.conflicts, *state.baseline}
    landed = [path for path in state.touched if path not in apart]
    how = ("--literal-pathspecs", "diff", "--quiet", "--no-ext-diff", "--no-textconv")
    if landed:
        gone = not project.git.run(*how, state.head, "--", *landed).returncode
    else:
        # Git remembers what was decided one by one until a reset or a commit.
        decided = project.git.listed("ls-files", "-z", "--resolve-undo", "--", ".")
        untouched = project.git("rev-parse", "HEAD") == state.head
        gone = untouched and not unmerged and not decided
    if gone:
        raise SpineError(
            f"nothing of the update to {state.target} is left in the project: run"
            " `python tools/spine abort`, and update again"
        )


def _is_marked(path: Path) -> bool:
    return path.is_file() and _MARKS.search(path.read_bytes()) is not None


def abort(project: Project) -> State:
    """Take an unfinished update back: every file that it wrote is as it was before.

    Raises:
        SpineError: no update is unfinished, something was committed since, or git is at work.
    """
    state = State.read(project)
    refuse_lock(project)
    if project.git("rev-parse", "HEAD") != state.head:
        raise SpineError(
            f"something was committed since the update began: go back with"
            f" `git reset --soft {state.head}`, then try again"
        )
    _restore(project, state)
    _forget(project, keep=True)
    return state


def _restore(project: Project, state: State) -> None:
    """Put every file that was touched back as it was, and keep what lies there now."""
    kept_before = project.state / _BEFORE
    for path in _present(project, state.touched):
        # A folder, a submodule maybe, goes only where a file is to come back.
        if not _is_folder(project.root / path) or os.path.lexists(kept_before / path):
            _remove(project, path)
    for path in state.touched:
        kept = kept_before / path
        if os.path.lexists(kept):
            (project.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept, project.root / path, follow_symlinks=False)
    listed = project.git.listed(
        "ls-tree", "-r", "-z", "--full-tree", f"{state.head}:{project.prefix}"
    )
    old = {path: line.split()[:3] for line in listed for path in [line.partition("\t")[2]]}
    gone = [(*GONE, 0, path) for path in state.touched]
    kept = [(old[path][0], old[path][2], 0, path) for path in state.touched if path in old]
    _index(project, [*gone, *kept])
    project.git.run("update-index", "-q", "--refresh")


def _remove(project: Project, path: str) -> None:
    """Move a file out of the project, and remove the folders that it leaves empty."""
    place, after = project.root / path, project.state / _AFTER / path
    after.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(after):
        # A restore that was cut off has been here before.
        after = after.with_name(f"{after.name}~{os.getpid()}")
    shutil.move(place, after)
    with suppress(OSError):
        for folder in place.parents:
            if folder == project.root:
                break
            folder.rmdir()
