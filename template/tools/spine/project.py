"""The project that this folder belongs to: its place in git, its answers and its manifest."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = [
    "BYTECODE",
    "GONE",
    "MANIFEST",
    "SPINE",
    "Answers",
    "Git",
    "Manifest",
    "Project",
    "SpineError",
    "fingerprint",
    "index_info",
    "run_uv",
]

MANIFEST = "tools/spine/manifest.json"
SPINE = ("libs/llmgine", "tools/spine")
GONE = ("0", "0" * 40)  # the entry, mode and blob id, of a file that is to go

# What git sets for hooks and aliases, and what changes how it reads names: it would lead away from
# the folder that is meant.
_LEAD_AWAY = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DEFAULT_HASH",
        "GIT_DIR",
        "GIT_GLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_INDEX_FILE",
        "GIT_LITERAL_PATHSPECS",
        "GIT_NAMESPACE",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)
# Python leaves bytecode wherever it runs, here too.
BYTECODE = ":(exclude)*__pycache__/*"
_LOCATE = (
    "rev-parse",
    "--path-format=absolute",
    "--show-object-format",
    "--show-toplevel",
    *("--git-path", "objects", "--git-path", "index", "--git-path", "llmgine-update"),
    "--show-prefix",
)


class SpineError(Exception):
    """What can't be done and how to mend it, in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Git:
    """Git in a folder.

    Attributes:
        folder: where it runs.
        environment: variables beside those of this process.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command that may fail, with `data` on its standard input."""
        kept = {name: value for name, value in os.environ.items() if name not in _LEAD_AWAY}
        # Messages are read, and what only looks takes no lock.
        fixed = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        try:
            return subprocess.run(  # noqa: S603 - no shell
                ["git", "-C", str(self.folder), *arguments],  # noqa: S607 - the user's own git
                input=data,
                capture_output=True,
                check=False,
                env=kept | fixed | dict(self.environment),
            )
        except FileNotFoundError:
            raise SpineError("git isn't installed: install git 2.38 or newer") from None

    def __call__(self, *arguments: str, data: bytes = b"") -> str:
        """Run a command that must succeed and return what it printed, without the last newline."""
        done = self.run(*arguments, data=data)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            command = next((word for word in arguments if not word.startswith("-")), "")
            raise SpineError(f"git {command} failed: {lines[-1]}")
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")

    def listed(self, *arguments: str, data: bytes = b"") -> list[str]:
        """Run a command whose output is ended by NUL characters, item by item."""
        return [item for item in self(*arguments, data=data).split("\0") if item]

    def blob(self, name: str) -> bytes:
        """The content of a file that git keeps."""
        done = self.run("cat-file", "blob", name)
        if done.returncode:
            raise SpineError(f"git has no file {name}")
        return done.stdout

    def with_environment(self, **variables: str | Path) -> "Git":
        """The same with further variables."""
        added = {name: str(value) for name, value in variables.items()}
        return replace(self, environment={**self.environment, **added})


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the project was made from.

    Attributes:
        root: the project's folder.
        name: the file with the answers, as seen from there.
        text: its content.
        source: where the template lies.
        version: the template's version, as git describes it.
    """

    root: Path
    name: str
    text: str
    source: str
    version: str

    def value(self, name: str) -> str | None:
        """An answer that is one word or line, none where there is no such question."""
        return _scalar(self.text, name)

    def lists(self) -> dict[str, list[str]]:
        """The answers that are lists, by question, as Copier writes them: an item a line."""
        found = re.findall(r"^(\w+):(?: \[\]\n|\n((?:- .*\n)+))", self.text, re.MULTILINE)
        return {name: re.findall(r"^- (.*)", items, re.MULTILINE) for name, items in found}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What the spine was when it was rendered.

    Attributes:
        version: the spine's own version.
        answers_file: the file with the answers, as seen from the project.
        answers: the fingerprint of that file.
        files: the git blob id of every file of the spine.
    """

    version: str
    answers_file: str
    answers: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> "Manifest":
        """A manifest as it was written."""
        data = json.loads(text)
        answers = data["answers"]
        return cls(
            version=data["version"],
            answers_file=answers["file"],
            answers=answers["sha1"],
            files=dict(data["files"]),
        )


def fingerprint(text: str) -> str:
    """The digest of an answers file, without comments and without where the template lies.

    A template may move; every other answer is changed by `update --data`.
    """
    entries = re.sub(r"^_src_path:.*\n(?:[ \t].*\n)*|^#.*\n", "", text, flags=re.MULTILINE)
    return hashlib.sha1(entries.encode(), usedforsecurity=False).hexdigest()


def _scalar(text: str, name: str) -> str | None:
    """A value of an answers file; Copier writes plain and quoted ones, long ones folded."""
    found = re.search(rf"^{name}:[ ]?(.*(?:\n[ \t]+.*)*)", text, re.MULTILINE)
    if found is None:
        return None
    value = re.sub(r"\s*\n\s*", " ", found[1]).strip()
    if quoted := re.fullmatch(r"'((?:[^']|'')*)'(?:\s+#.*)?", value):
        return quoted[1].replace("''", "'")
    if quoted := re.fullmatch(r'("(?:[^"\\]|\\.)*")(?:\s+#.*)?', value):
        return json.loads(re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", quoted[1]))
    return re.sub(r"\s+#.*", "", value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A rendered project inside a git repository.

    Attributes:
        root: the project's folder.
        top: the repository's folder, which may hold more than the project.
        prefix: the project's folder as git names it, with a slash at its end, or nothing.
        git: git in the project's folder.
        objects: where git keeps files.
        index: where git keeps what is staged.
        state: where an unfinished update is written down.
    """

    root: Path
    top: Path
    prefix: str
    git: Git
    objects: Path
    index: Path
    state: Path

    @classmethod
    def found(cls, root: Path) -> "Project":
        """The project in a folder.

        Raises:
            SpineError: it is in no git repository, or in one that this can't work with.
        """
        git = Git(folder=root)
        located = git.run(*_LOCATE)
        if located.returncode:
            told = located.stderr.decode(errors="replace").strip().partition("\n")[0]
            if "not a git repository" not in told:
                raise SpineError(f"{root} is in no git repository that can be read: {told}")
            raise SpineError(
                f"{root} is in no git repository that can be read: run `git init`, commit"
                " all files, then try again"
            )
        lines = located.stdout.decode(errors="surrogateescape").split("\n")
        form, top, objects, index, state, prefix = lines[:6]
        if prefix:
            # A repository may hold several projects.
            state += f"-{hashlib.sha1(os.fsencode(prefix), usedforsecurity=False).hexdigest()[:12]}"
        if form != "sha1":
            raise SpineError(f"this repository names files by {form}; only sha1 is supported")
        return cls(
            root=root,
            top=Path(top),
            prefix=prefix,
            git=git,
            objects=Path(objects),
            index=Path(index),
            state=Path(state),
        )

    def manifest(self) -> Manifest:
        """The manifest that was rendered into the project."""
        try:
            return Manifest.of((self.root / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpineError(
                f"{MANIFEST} is missing or damaged ({error!r}): restore it with"
                f" `git checkout HEAD -- {MANIFEST}`"
            ) from None

    def answers(self) -> Answers:
        """The answers that the project was made from.

        Raises:
            SpineError: there are none, or they don't name a template.
        """
        name = self.manifest().answers_file
        path = self.root / name
        restore = f"restore it with `git checkout HEAD -- {name}`"
        if not path.is_file():
            raise SpineError(f"{name} is missing: {restore}")
        try:
            text = path.read_text("utf-8")
            source, version = _scalar(text, "_src_path"), _scalar(text, "_commit")
        except ValueError as error:
            raise SpineError(f"{name} is damaged ({error}): {restore}") from None
        if not source or not version:
            raise SpineError(f"{name} doesn't name a template and its version: {restore}")
        return Answers(root=self.root, name=name, text=text, source=source, version=version)

    def refuse_changes(self) -> None:
        """See that all of the project is committed, and that git looks at every file.

        Raises:
            SpineError: there is something that an update could lose.
        """
        how = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
        dirty = self.git.listed(*how, "--", ".", BYTECODE)
        if dirty:
            more = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
            raise SpineError(
                f"the project has changes that aren't committed ({dirty[0][3:]}{more}):"
                " commit or stash them, then try again"
            )
        for line in self.git.listed("ls-files", "-v", "-z"):
            if line[0] == "S" or line[0].islower():
                raise SpineError(
                    f"git is told not to look at {line[2:]}: run `git sparse-checkout disable`, or"
                    " `git update-index --no-skip-worktree --no-assume-unchanged` for the file,"
                    " then try again"
                )

    @contextmanager
    def scratch(self, *, keep: bool) -> Generator[tuple[Git, Path]]:
        """Git with an index of its own in the project's folder, and a folder to work in.

        Args:
            keep: whether the repository keeps what is written. Otherwise it goes with the folder,
                and the repository stays as it is.
        """
        # A spine that is as it was needs none, and this takes time to load.
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="llmgine-spine-") as name:
            folder = Path(name).resolve()
            own = folder / "objects"
            (own / "info").mkdir(parents=True)
            (own / "info" / "alternates").write_text(f"{self.objects}\n", "utf-8")
            yield (
                self.git.with_environment(
                    GIT_INDEX_FILE=folder / "index",
                    GIT_OBJECT_DIRECTORY=self.objects if keep else own,
                ),
                folder,
            )


def index_info(entries: Sequence[tuple[str, str, int, str]]) -> bytes:
    """Entries (mode, id, stage, path) as `git update-index -z --index-info` reads them."""
    lines = (f"{mode} {name} {stage}\t{path}\0" for mode, name, stage, path in entries)
    return "".join(lines).encode(errors="surrogateescape")


def run_uv(folder: Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the user's own uv in a folder, with `data` on its standard input.

    Raises:
        SpineError: there is none.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise SpineError("uv isn't installed: see https://docs.astral.sh/uv")
    # The environment that this runs in may be another project's.
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(  # noqa: S603 - the user's own uv
        [uv, *arguments],
        input=data,
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment,
    )
