"""The merge: the version that the project was made from, the project as it is, the new version."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lists import MARK, settled
from project import GONE, Git, SpineError, index_info

__all__ = ["Change", "Entry", "Merge", "Names", "Outcome", "merged", "tree_of"]

Entry = tuple[str, str]  # mode and blob id
_OURS, _THEIRS = 2, 3
_LISTS = frozenset({"pyproject.toml", "settings.toml"})
_WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "llmgine"), ("EMAIL", "llmgine@localhost"), ("DATE", "@0 +0000"))
}
_DETECT = ("-c", "merge.renames=true", "-c", "merge.renameLimit=20000")
# A new file goes where the template puts it, whatever folders were moved.
_MERGE = (*_DETECT, "-c", "merge.directoryRenames=false", "-c", "merge.conflictStyle=merge")
_REASONS = {
    "binary": "you and the template changed a file that isn't text; yours is kept",
    "add/add": "you and the template added different files of this name",
    "modify/delete": "the template removed it, and you edited it; yours is kept",
    "rename/delete": "the template removed it, and you renamed it; yours is kept",
    "rename/rename": "you and the template renamed it differently",
    "file/directory": "one side has a file where the other has a folder",
    "contents": "you and the template changed the same lines",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What conflict marks call the two sides."""

    ours: str
    theirs: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What the template changed in one file, and what became of it.

    Attributes:
        path: the file, by its name in the new version, or in the old one if it went.
        outcome: landed, conflicted or skipped.
        detail: why, or how; may be empty.
        yours: whether the project had edited, renamed or deleted the file.
    """

    path: str
    outcome: str
    detail: str
    yours: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a merge comes to.

    Attributes:
        tree: the merged project.
        changes: what became of each change of the template.
        conflicts: the files to look at, with the entries of base, ours and theirs by number.
    """

    tree: str
    changes: Sequence[Change]
    conflicts: Mapping[str, Mapping[int, Entry]]


@dataclass(kw_only=True, slots=True)
class Merge:
    """A merge on its way.

    Attributes:
        git: with an index of its own.
        folder: to write in.
        trees: base, ours and theirs.
        tree: the merged one.
        stages: of each file in conflict, the entries of base, ours and theirs by number.
        kinds: of each file in conflict, what git calls the conflict.
        reasons: of each file in conflict, what to tell.
        skipped: files that the project deleted, and the template changed.
        settled: files whose entry replaces the one in the merged tree.
    """

    git: Git
    folder: Path
    trees: tuple[str, str, str]
    tree: str = ""
    stages: dict[str, dict[int, Entry]] = field(default_factory=dict[str, dict[int, Entry]])
    kinds: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    settled: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def entries(self, tree: str) -> dict[str, Entry]:
        """The files of a tree."""
        lines = self.git.listed("ls-tree", "-r", "-z", "--full-tree", tree)
        parted = (line.partition("\t") for line in lines)
        return {path: (entry[:6], entry.split()[2]) for entry, _, path in parted}

    def differences(self, old: str, new: str) -> Iterator[tuple[str, str, str]]:
        """What differs between two trees: kind, path before, path after."""
        how = ("-r", "-z", "-M", "-l20000", "--raw", "--full-index")
        fields = iter(self.git.listed("diff-tree", *how, old, new))
        for entry in fields:
            kind = entry.split()[4][0]
            before = next(fields)
            yield kind, before, next(fields) if kind in "RC" else before


def tree_of(git: Git, folder: Path, files: Path) -> str:
    """Store a folder's files as git would store them in a project of their own.

    Args:
        git: with an index of its own.
        folder: to write in.
        files: the files.
    """
    own = folder / "own"
    if not own.is_dir():
        git("init", "--quiet", "--template=", "--object-format=sha1", str(own))
    apart = git.with_environment(
        GIT_DIR=own / ".git", GIT_WORK_TREE=files, GIT_INDEX_FILE=folder / f"index-{files.name}"
    )
    here = Git(folder=files, environment=apart.environment)
    here("-c", "core.autocrlf=false", "-c", "core.safecrlf=false", "add", "--all", "--force", ".")
    return here("write-tree")


def merged(
    git: Git, folder: Path, trees: tuple[str, str, str], names: Names, always: Sequence[str]
) -> Outcome:
    """Merge the project with a new version of the template.

    Args:
        git: with an index of its own, in the project's folder.
        folder: to write in.
        trees: the old version, the project and the new version.
        names: for conflict marks.
        always: files that are the template's alone.
    """
    merge = Merge(git=git, folder=folder, trees=trees)
    _by_git(merge, names)
    base, ours, theirs = (merge.entries(tree) for tree in trees)
    for path in list(merge.stages):
        _look_at(merge, path, {*always})
    for path in always:
        if path in theirs:
            merge.settled[path] = theirs[path]
    _each_in_its_place(merge, (base, ours, theirs))
    _both_sides(merge, (base, ours, theirs))
    _settle(merge)
    changes = tuple(_changes(merge, ours, {*always}))
    return Outcome(tree=merge.tree, changes=changes, conflicts=merge.stages)


def _by_git(merge: Merge, names: Names) -> None:
    """Let git merge; what it says is read as data."""
    git, own = merge.git, merge.folder / "own"
    if not own.is_dir():
        git("init", "--quiet", "--template=", "--object-format=sha1", str(own))
    apart = git.with_environment(GIT_DIR=own / ".git", **_WHO)
    base, ours, theirs = merge.trees
    root = apart("commit-tree", base, "-m", "base")
    for name, tree in ((names.ours, ours), (names.theirs, theirs)):
        commit = apart("commit-tree", tree, "-p", root, "-m", name)
        apart("update-ref", f"refs/{name}", commit)
    done = apart.run(*_MERGE, "merge-tree", "--write-tree", "-z", names.ours, names.theirs)
    if done.returncode not in {0, 1}:
        message = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise SpineError(f"git merge-tree failed: {message}: git 2.38 or newer is needed")
    _read(merge, done.stdout.decode(errors="surrogateescape"))


def _read(merge: Merge, text: str) -> None:
    """Take apart what `git merge-tree -z` prints: the tree, entries in conflict, messages."""
    fields = iter(text.split("\0"))
    merge.tree = next(fields)
    for entry in fields:
        if not entry:
            break
        about, _, path = entry.partition("\t")
        mode, name, stage = about.split()
        merge.stages.setdefault(path, {})[int(stage)] = (mode, name)
    for count in fields:
        if not count:
            break
        paths = [next(fields) for _ in range(int(count))]
        # The kind, and a message that may name a narrower one.
        kinds = re.findall(r"^CONFLICT \((.+?)\)", f"{next(fields)}\n{next(fields)}", re.MULTILINE)
        for path in paths:
            merge.kinds.setdefault(path, set()).update(kinds)


def _look_at(merge: Merge, path: str, always: set[str]) -> None:
    """Decide what becomes of a file in conflict."""
    stages, kinds = merge.stages[path], merge.kinds.get(path, set())
    if path in always:
        del merge.stages[path]
    elif kinds & {"modify/delete", "rename/delete"} and _OURS not in stages and _THEIRS in stages:
        # The project deleted the file, and that stands; the fix to it is reported.
        merge.skipped[path] = "you deleted it"
        merge.settled[path] = GONE
        del merge.stages[path]
    elif text := _settled_lists(merge, path):
        name = merge.git("hash-object", "-w", "--stdin", data=text.encode())
        merge.settled[path] = (stages[_OURS][0], name)
        del merge.stages[path]
    else:
        known = [reason for kind, reason in _REASONS.items() if kind in kinds]
        _report(merge, path, known[0] if known else ", ".join(sorted(kinds)) or "see git status")


def _report(merge: Merge, path: str, reason: str) -> None:
    """Note a conflict. Marks in the program that finishes updates would keep it from that."""
    stages = merge.stages[path]
    if path.startswith("tools/spine/") and {_OURS, _THEIRS} <= {*stages}:
        merge.settled[path] = stages[_OURS]
        reason += f"; yours is kept, since it runs: `git show :3:./{path}` has the template's"
    merge.reasons[path] = reason


def _settled_lists(merge: Merge, path: str) -> str | None:
    """The file with lists and keys of both sides, if it is one that has such."""
    stages = merge.stages[path]
    if PurePosixPath(path).name not in _LISTS or not {_OURS, _THEIRS} <= {*stages}:
        return None
    sides = [merge.folder / name for name in ("ours", "base", "theirs")]
    contents = [
        merge.git.blob(stages[stage][1]) if stage in stages else b""
        for stage in (_OURS, 1, _THEIRS)
    ]
    plain = [content.replace(b"\r\n", b"\n") for content in contents]
    for file, content in zip(sides, plain, strict=True):
        file.write_bytes(content)
    how = ("-p", "--diff3", f"--marker-size={MARK}")
    done = merge.git.run("merge-file", *how, *map(str, sides))
    try:
        ours, base, theirs = (content.decode() for content in plain)
        text = settled(done.stdout.decode(), ours=ours, base=base, theirs=theirs)
    except UnicodeDecodeError:
        return None
    # Lines end as the project's do.
    return text.replace("\n", "\r\n") if text and plain[0] != contents[0] else text


def _each_in_its_place(merge: Merge, sides: tuple[dict[str, Entry], ...]) -> None:
    """Hold the merge to what each side did.

    Git looks for new names only where it needs one, so it may take a similar file for a renamed
    one, and bring a change into it that belongs elsewhere.
    """
    _, ours, theirs = sides
    result = merge.entries(merge.tree)
    base, mine, new = merge.trees
    own = {before: (kind, path) for kind, before, path in merge.differences(base, mine)}
    changed = {before: (kind, path) for kind, before, path in merge.differences(base, new)}
    for side, others, there, here in ((changed, own, ours, theirs), (own, changed, theirs, ours)):
        for before, (_, path) in side.items():
            alone = before not in others and path not in there.keys() - {before}
            if alone and path not in merge.stages and result.get(path) != here.get(path):
                merge.settled[path] = here.get(path, GONE)
    for before in own.keys() & changed.keys():
        _both_touched(merge, sides, before, (own[before], changed[before]))


def _both_touched(
    merge: Merge,
    sides: tuple[dict[str, Entry], ...],
    before: str,
    kinds: tuple[tuple[str, str], tuple[str, str]],
) -> None:
    """Tell of a file that both sides touched, and whose change git took elsewhere."""
    base, ours, theirs = sides
    (own_kind, own_path), (kind, path) = kinds
    if {before, own_path, path} & {*merge.reasons, *merge.skipped} or own_kind == kind == "D":
        return
    there = {own_path: ours.get(own_path), path: theirs.get(path)}
    result = merge.entries(merge.tree) | merge.settled
    if own_kind == "D":
        merge.skipped[path] = "you deleted it"
        if path != before:
            merge.settled[path] = GONE
    elif kind == "D" or (
        kind == "R" and ours[own_path] != base[before] and result.get(path) == there[path]
    ):
        merge.settled[own_path] = ours[own_path]
        merge.stages[own_path] = {1: base[before], _OURS: ours[own_path]}
        merge.reasons[own_path] = _REASONS["modify/delete"]
    elif own_kind == "R" and there[path] != base[before] and result.get(own_path) == ours[own_path]:
        merge.stages[own_path] = {1: base[before], _OURS: ours[own_path], _THEIRS: theirs[path]}
        merge.reasons[own_path] = "you renamed it, and the template's change is not in it"


def _both_sides(merge: Merge, sides: tuple[dict[str, Entry], ...]) -> None:
    """Look at what both sides changed without a conflict: it must still parse."""
    base, ours, theirs = sides
    for path, entry in merge.entries(merge.tree).items():
        mine, new = ours.get(path), theirs.get(path)
        written = merge.settled.get(path, entry)
        if path in merge.stages or written in (mine, new, base.get(path), GONE):
            continue
        problem = _problem(path, merge.git.blob(written[1]))
        both = [side[path][1] for side in (ours, theirs) if path in side]
        if problem and not any(_problem(path, merge.git.blob(name)) for name in both):
            at = enumerate((base.get(path), mine, new), start=1)
            merge.stages[path] = {stage: side for stage, side in at if side is not None}
            _report(merge, path, f"both sides' lines are in it, but together they fail: {problem}")


def _problem(path: str, content: bytes) -> str:
    """Why a file isn't what its name says, or nothing."""
    try:
        if path.endswith(".py"):
            ast.parse(content)
        elif path.endswith(".toml"):
            tomllib.loads(content.decode())
    except (SyntaxError, ValueError) as error:
        return str(error).partition("\n")[0]
    return ""


def _settle(merge: Merge) -> None:
    """Write what was decided into the merged tree."""
    if not merge.settled:
        return
    git = merge.git.with_environment(GIT_INDEX_FILE=merge.folder / "index-merged")
    git("read-tree", merge.tree)
    entries = [(mode, name, 0, path) for path, (mode, name) in merge.settled.items()]
    git("update-index", "-z", "--index-info", data=index_info(entries))
    merge.tree = git("write-tree")


def _changes(merge: Merge, ours: dict[str, Entry], always: set[str]) -> Iterator[Change]:
    """What became of each change of the template."""
    base, mine, theirs = merge.trees
    own = {before: (kind, after) for kind, before, after in merge.differences(base, mine)}
    result, new = merge.entries(merge.tree), merge.entries(theirs)
    told: set[str] = set()
    for kind, before, path in merge.differences(base, theirs):
        if path in always:
            continue
        own_kind, own_path = own.get(before, ("", before))
        places = dict.fromkeys((path, before, own_path))
        told.update(places)
        yield Change(
            path=path,
            yours=before in own or (kind == "A" and path in ours),
            **_outcome(merge, [*places], kind=kind, own=own_kind, result=result, new=new),
        )
    for path in [path for path in merge.reasons if path not in told]:
        yield Change(path=path, yours=True, outcome="conflicted", detail=merge.reasons[path])


def _outcome(
    merge: Merge,
    places: Sequence[str],
    *,
    kind: str,
    own: str,
    result: Mapping[str, Entry],
    new: Mapping[str, Entry],
) -> dict[str, str]:
    """What became of a change that may be found under several names."""
    path = places[0]
    for place in places:
        if place in merge.reasons:
            return {"outcome": "conflicted", "detail": merge.reasons[place]}
        if place in merge.skipped:
            return {"outcome": "skipped", "detail": merge.skipped[place]}
    if kind == "D":
        return {"outcome": "landed", "detail": "removed"}
    if own == "D":
        return {"outcome": "skipped", "detail": "you deleted it"}
    there = next((place for place in reversed(places) if place in result), None)
    if there is None:
        return {"outcome": "skipped", "detail": "it is gone from the project"}
    if result[there] == new.get(path):
        how = {"A": "new", "R": "renamed"}.get(kind, "")
    else:
        how = "merged with your edits"
    if there != path and own == "R":
        how = f"in {there}, as you renamed it" + (", with your edits" if "edits" in how else "")
    return {"outcome": "landed", "detail": how}
