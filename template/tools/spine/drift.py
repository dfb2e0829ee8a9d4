"""What the project made of its spine, and what stands in the way of an update."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from project import (
    BYTECODE,
    GONE,
    MANIFEST,
    SPINE,
    Git,
    Manifest,
    Project,
    SpineError,
    fingerprint,
    index_info,
)
from source import Source, order

__all__ = [
    "Drift",
    "FileState",
    "as_json",
    "as_markdown",
    "as_text",
    "drift",
    "edited",
    "is_behind",
    "problems",
]

_COUNTS = re.compile(r"(?:\d+|-)\t(?:\d+|-)\t")
_ROOMS = tuple(f"{room}/" for room in SPINE)
NO_BASE = "its first text isn't in this repository's history"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """One file of the spine.

    Attributes:
        path: the file, by its present name.
        state: pristine, edited, renamed, deleted or added.
        added: lines that the project added, none where that can't be told.
        removed: lines that it removed, none where that can't be told.
        was: the name that it had.
        behind: whether a newer version has another text; none if nobody asked.
        note: what else there is to know.
    """

    path: str
    state: str
    added: int | None = None
    removed: int | None = None
    was: str | None = None
    behind: bool | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The spine as a whole.

    Attributes:
        version: the version of the template that the project was made from.
        newest: the newest version, none if nobody asked.
        unfinished: whether an update waits to be finished.
        files: every file.
    """

    version: str
    newest: str | None
    unfinished: bool
    files: tuple[FileState, ...]

    def counted(self) -> dict[str, int]:
        """How many files there are of each state."""
        states = [file.state for file in self.files]
        return {state: states.count(state) for state in dict.fromkeys(sorted(states))}


def drift(project: Project, *, ask_source: bool) -> Drift:
    """Compare the spine with what was rendered.

    Args:
        project: the project, which stays as it is.
        ask_source: whether to look for a newer version, too.
    """
    manifest, answers = project.manifest(), project.answers()
    newest, behind = None, None
    if ask_source:
        source = Source.of(answers)
        newest = source.newest(answers.version)
        behind = source.spine(newest) if newest and _later(newest, answers.version) else {}
    if _is_pristine(project, manifest):
        files = list(_pristine(manifest, behind))
    else:
        with project.scratch(keep=False) as (git, folder):
            files = list(_files(project, manifest, git, folder, behind))
    return Drift(
        version=answers.version,
        newest=newest,
        unfinished=project.state.exists(),
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def _later(version: str, than: str) -> bool:
    one, other = order(version), order(than)
    return one is not None and (other is None or one > other)


def _is_pristine(project: Project, manifest: Manifest) -> bool:
    """Whether the spine lies there byte for byte: then git needn't be asked, which takes time."""
    rooms = [f"{project.root}/{room}" for room in SPINE if (project.root / room).is_dir()]
    start = len(f"{project.root}/")
    found = {entry.path[start:]: entry for room in rooms for entry in _entries(room)}
    return found.keys() == {*manifest.files, MANIFEST} and all(
        not found[path].is_symlink() and _blob_id(found[path].path) == name
        for path, name in manifest.files.items()
    )


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and in its folders, bytecode aside."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry
            elif entry.name != "__pycache__":
                yield from _entries(entry.path)


def _blob_id(path: str) -> str:
    """What git names a file of this content by."""
    content = Path(path).read_bytes()
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _pristine(manifest: Manifest, newer: dict[str, str] | None) -> Iterator[FileState]:
    for path, name in manifest.files.items():
        yield _with_behind(FileState(path=path, state="pristine"), newer, path, {name})


def _present(project: Project, git: Git, folder: Path) -> str:
    """The project's files as they lie there, as a tree."""
    if project.index.exists():
        # What git knows of unchanged files spares reading them.
        shutil.copy2(project.index, folder / "index")
    if project.prefix:
        # Conflicts elsewhere in the repository are none of the spine's business.
        lines = git.listed("ls-files", "--full-name", "--unmerged", "-z", "--", ":/")
        paths = {line.partition("\t")[2] for line in lines}
        gone = [(*GONE, 0, path) for path in paths if not path.startswith(project.prefix)]
        git("update-index", "-z", "--index-info", data=index_info(gone))
    quiet = ("-c", "core.safecrlf=false", "-c", "advice.addEmbeddedRepo=false")
    git(*quiet, "add", "--update", "--", ".")
    if folders := [name for name in SPINE if (project.root / name).is_dir()]:
        git(*quiet, "add", "--all", "--", *folders, BYTECODE)
    return git("write-tree", f"--prefix={project.prefix}") if project.prefix else git("write-tree")


def _files(
    project: Project, manifest: Manifest, git: Git, folder: Path, newer: dict[str, str] | None
) -> Iterator[FileState]:
    """The state of every file, in no order."""
    present = _present(project, git, folder)
    base, missing = _base(git, folder, manifest)
    found: dict[str, tuple[FileState, str]] = {}
    for file, first, name in _compared(git, base, present):
        if first in missing:
            found[first] = FileState(path=first, state="edited", note=NO_BASE), name
        elif first in manifest.files or (first.startswith(_ROOMS) and first != MANIFEST):
            found[first] = file, name
    for path, name in manifest.files.items():
        untouched = FileState(path=path, state="deleted" if path in missing else "pristine")
        file, now = found.pop(path, (untouched, name))
        yield _with_behind(file, newer, path, {name, now})
    yield from (file for file, _ in found.values())


def _base(git: Git, folder: Path, manifest: Manifest) -> tuple[str, set[str]]:
    """The spine as it was rendered, as a tree, and the files that git has no first text of."""
    wanted = "\n".join(manifest.files.values()).encode()
    checked = git("cat-file", "--batch-check=%(objectname)", data=wanted).splitlines()
    unknown = {line.split()[0] for line in checked if line.endswith(" missing")}
    missing = {path for path, name in manifest.files.items() if name in unknown}
    known = [(path, name) for path, name in manifest.files.items() if path not in missing]
    entries = index_info([("100644", name, 0, path) for path, name in known])
    own = git.with_environment(GIT_INDEX_FILE=folder / "index-base")
    own("update-index", "-z", "--add", "--index-info", data=entries)
    return own("write-tree", "--missing-ok"), missing


def _with_behind(
    file: FileState, newer: dict[str, str] | None, path: str, names: set[str]
) -> FileState:
    """The state, with whether the newest version has a text that the project hasn't."""
    if newer is None:
        return file
    behind = bool(newer) and newer.get(path) not in names
    return replace(file, behind=behind)


def _compared(git: Git, base: str, present: str) -> Iterator[tuple[FileState, str, str]]:
    """What differs: the file, its first name and its present blob id."""
    how = ("-r", "-z", "-M", "-l20000", "--full-index", "--raw", "--numstat")
    fields = iter(git("diff-tree", *how, base, present).split("\0"))
    raw: list[tuple[str, str, str, str]] = []
    counts: list[str] = []
    for field in fields:
        if field.startswith(":"):
            _, _, _, name, kind = field.split()
            before = next(fields)
            raw.append((kind[0], before, next(fields) if kind[0] == "R" else before, name))
        elif _COUNTS.match(field):
            counts.append(field)
    for (kind, before, path, name), count in zip(raw, counts, strict=True):
        added, removed, _ = count.split("\t")
        text = added != "-"
        yield (
            FileState(
                path=path,
                state={"A": "added", "D": "deleted", "R": "renamed"}.get(kind, "edited"),
                added=int(added) if text else None,
                removed=int(removed) if text else None,
                was=before if kind == "R" else None,
                note="" if text else "not text",
            ),
            before,
            name,
        )


def problems(project: Project) -> list[str]:
    """What stands in the way of an update, and needs a look in any case."""
    found: list[str] = []
    if project.state.exists():
        found.append("an update is unfinished: run `python tools/spine finish`, or `abort`")
    # Seven characters or more: how long they are is an attribute.
    marks = ("-e", "^<<<<<<<<* ", "-e", "^>>>>>>>>* ")
    how = ("-I", "-G", "-l", "-z", "--no-color", "--all-match")
    grep = project.git.run("grep", *how, *marks, "--", ".")
    if grep.returncode > 1:
        raise SpineError(f"git grep failed: {grep.stderr.decode(errors='replace').strip()}")
    marked = [path for path in grep.stdout.decode(errors="replace").split("\0") if path]
    found += [f"conflict marks in {path}" for path in marked]
    unmerged = project.git.listed("ls-files", "-z", "--unmerged")
    paths = dict.fromkeys(line.partition("\t")[2] for line in unmerged)
    found += [f"{path} is in conflict: `git add` it once it is as you want it" for path in paths]
    rejected = project.git.listed("ls-files", "-z", "--cached", "--others", "--", "*.rej")
    found += [f"{path} holds a change that was rejected: see to it, remove it" for path in rejected]
    return [*found, *_answers_problems(project)]


def _answers_problems(project: Project) -> list[str]:
    try:
        answers = project.answers()
    except SpineError as error:
        return [str(error)]
    if fingerprint(answers.text) == project.manifest().answers:
        return []
    return [edited(answers.name)]


def is_behind(project: Project) -> str | None:
    """The newest version, if the project has an older one."""
    answers = project.answers()
    newest = Source.of(answers).newest(answers.version)
    return newest if newest and _later(newest, answers.version) else None


def edited(name: str) -> str:
    """What to tell somebody whose answers file was written in."""
    return (
        f"{name} was edited by hand: take that back (`git log -p -- {name}`), and change answers"
        " with `python tools/spine update --data NAME=VALUE`"
    )


def _counts(file: FileState) -> str:
    if file.state in {"deleted", "pristine"} or file.added is None:
        return ""
    return f"+{file.added} -{file.removed}"


def _title(report: Drift) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in report.counted().items())
    return f"llmgine {report.version}: {len(report.files)} spine files: {counts}"


def _remarks(report: Drift) -> list[str]:
    """What is to be told of the whole."""
    remarks: list[str] = []
    if report.unfinished:
        remarks.append("An update is unfinished: run `python tools/spine finish`, or `abort`.")
    behind = sum(bool(file.behind) for file in report.files)
    if report.newest is not None:
        newer = _later(report.newest, report.version)
        told = f"{report.newest} is out: {behind} of these files changed. See what it would do with"
        remarks.append(
            f"{told} `python tools/spine update --dry-run`."
            if newer
            else f"{report.version} is the newest version."
        )
    return remarks


def _rows(report: Drift) -> Iterator[tuple[str, str, str, str]]:
    """What isn't as it was: state, name, lines, note."""
    for file in report.files:
        if file.state == "pristine" and not file.behind:
            continue
        notes = [f"was {file.was}" if file.was else "", file.note, "behind" if file.behind else ""]
        yield file.state, file.path, _counts(file), ", ".join(note for note in notes if note)


def as_text(report: Drift) -> str:
    """For a terminal."""
    rows = [
        f"  {state:<9} {lines:>9}  {path}{f' ({note})' if note else ''}"
        for state, path, lines, note in _rows(report)
    ]
    return "\n".join([_title(report), *rows, *_remarks(report)])


def as_markdown(report: Drift) -> str:
    """For a pull request."""
    rows = [
        f"| {state} | `{path}` | {lines} | {note} |" for state, path, lines, note in _rows(report)
    ]
    table = ["", "| State | File | Lines | |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join([f"**{_title(report)}**", *table, *(f"\n{text}" for text in _remarks(report))])


def as_json(report: Drift) -> str:
    """For programs."""
    return json.dumps({**asdict(report), "counts": report.counted()}, indent=2)
