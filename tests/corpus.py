"""Histories of real-looking work on a project, each followed by an update.

What a team wrote carries the mark OURS and a number, what the template fixed the mark FIX and a
name: after an update, all of OURS must be in the tree, and each FIX in it or reported.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import commit, git
from tests.updating import SAMPLES, Project, Releases, sample

__all__ = ["HISTORIES", "History", "begin", "fixes", "ours", "release_all"]

IMAGE = f"{SAMPLES}/image.bin"
LANE = "libs/llmgine/src/llmgine/bus/lane.py"
CHAT = "apps/chat/README.md"
HANDLER = '''\
"""A handler of our own. OURS-1"""

from llmgine.contracts import Event
from llmgine.observability import ObservabilityEventHandler


class Counter(ObservabilityEventHandler):
    """Count. OURS-2"""

    def handle(self, event: Event) -> None:
        self.seen = event
'''

Work = Callable[[Project], None]


@dataclass(frozen=True, kw_only=True)
class History:
    """Work on a project, and the update that follows.

    Attributes:
        work: what the team does; it is committed afterwards.
        to: the version of the update.
        data: answers that change.
        realistic: whether it stands for everyday work, rather than for what may go wrong.
        conflicts: whether somebody has to decide.
        folder: where the project lies in its repository.
    """

    work: Work
    to: str = "v0.2.0"
    data: Mapping[str, str] = field(default_factory=dict[str, str])
    realistic: bool = False
    conflicts: bool = False
    folder: str = ""


def release_all(template: Path, folder: Path) -> Releases:
    """Versions 0.1.0, 0.2.0 with fixes only, and 0.3.0 with renames, removals and additions."""
    made = Releases.of(template, folder)
    for name in ("alpha", "beta", "gamma", "delta"):
        made.edit(sample(name), "value + 6\n", f"value + 600  # FIX-{name}\n")
    made.edit("pyproject.toml.jinja", "dev = [\n", 'dev = [\n  "attrs>=25", # FIX-dependency\n')
    made.append("settings.toml.jinja", "\n# FIX-settings\n# [later]\n# enabled = true\n")
    made.append("docs/concepts.md", "\nFIX-docs\n")
    made.append(LANE, "\n# FIX-lane\n")
    made.release("v0.2.0")
    made.rename(sample("alpha"), sample("first"))
    made.edit(sample("first"), "value + 9\n", "value + 900  # FIX-first\n")
    made.remove(sample("beta"))
    made.write(IMAGE, b"\0FIX-image\n")
    made.write("docs/later.md", "# Later\n\nFIX-later\n")
    made.write(sample("later"), "LATER = True  # FIX-added\n")
    made.release("v0.3.0")
    return made


def _marks(kind: str, contents: Mapping[str, bytes]) -> set[str]:
    found = (
        re.findall(rf"{kind}-[\w-]+", text.decode(errors="replace")) for text in contents.values()
    )
    return {mark for marks in found for mark in marks}


def ours(contents: Mapping[str, bytes]) -> set[str]:
    """The team's marks in a tree."""
    return _marks("OURS", contents)


def fixes(contents: Mapping[str, bytes]) -> set[str]:
    """The template's marks in a tree."""
    return _marks("FIX", contents)


def _change(name: str, step: int, mark: int) -> Work:
    old, new = f"value + {step}\n", f"value * {step}  # OURS-{mark}\n"
    return lambda project: project.change(sample(name), old, new)


def _append(path: str, text: str) -> Work:
    return lambda project: project.write(path, project.text(path) + text)


def _write(path: str, content: str | bytes) -> Work:
    return lambda project: project.write(path, content)


def _replace(path: str, old: str, new: str) -> Work:
    return lambda project: project.change(path, old, new)


def _delete(*paths: str) -> Work:
    return lambda project: _git(project, "rm", "--quiet", "-r", *paths)


def _move(old: str, new: str) -> Work:
    def work(project: Project) -> None:
        (project.folder / new).parent.mkdir(parents=True, exist_ok=True)
        _git(project, "mv", old, new)

    return work


def _git(project: Project, *arguments: str) -> None:
    git(project.folder, *arguments)


def _all(*works: Work) -> Work:
    def work(project: Project) -> None:
        for one in works:
            one(project)

    return work


def _nothing(project: Project) -> None:
    project.commit()


def _rewrite(path: str, change: Callable[[str], str]) -> Work:
    return lambda project: project.write(path, change(project.text(path)))


def _indented(text: str) -> str:
    return text.replace("    ", "  ") + "\n# OURS-1\n"


def _wrapped(text: str) -> str:
    return text.replace("(value: int)", "(\n    value: int,  # OURS-1\n)")


def _commented(text: str) -> str:
    return text.replace("def step_1(", "# OURS-1: ours\n\n\ndef step_1(")


def _split(project: Project) -> None:
    text = project.text(sample("gamma"))
    at = text.index("def step_9(")
    project.write(sample("gamma_rest"), f'"""The rest. OURS-1"""\n\n\n{text[at:]}')
    project.write(sample("gamma"), text[:at].rstrip() + "\n")


def _linked(project: Project) -> None:
    (project.folder / "docs/OURS-1.md").symlink_to("concepts.md")
    project.write("docs/list.md", "OURS-1\n")


def _executable(project: Project) -> None:
    (project.folder / sample("alpha")).chmod(0o755)


def _as_the_template(project: Project) -> None:
    project.change(sample("alpha"), "value + 6\n", "value + 600  # FIX-alpha\n")


def _twice(project: Project) -> None:
    """Work, an update to the version between, and work again."""
    _change("alpha", 2, 1)(project)
    project.commit()
    project.spine("update", "--to", "v0.2.0")
    project.commit()
    _change("alpha", 3, 2)(project)


def _rooted(project: Project) -> None:
    """Whatever is done beside the spine."""
    _append("README.md", "\n## Our part\n\nOURS-1\n")(project)
    _write("libs/billing/README.md", "OURS-2\n")(project)


HISTORIES: dict[str, History] = {
    "nothing was edited": History(work=_nothing, realistic=True),
    "an edit far from a fix": History(work=_change("alpha", 2, 1), realistic=True),
    "edits all around a fix": History(
        work=_all(_change("alpha", 4, 1), _change("alpha", 8, 2), _change("beta", 1, 3)),
        realistic=True,
    ),
    "an edit on the fixed line": History(work=_change("alpha", 6, 1), conflicts=True),
    "an edit on the line above a fix": History(
        work=_replace(sample("alpha"), "Take step 6.", "Take step 6. OURS-1"), conflicts=True
    ),
    "the same fix by hand": History(work=_as_the_template),
    "a function at the end of a fixed file": History(
        work=_append(sample("alpha"), "\n\ndef ours() -> str:\n    return 'OURS-1'\n"),
        realistic=True,
    ),
    "a line at the end of a file that the template extends": History(
        work=_append("docs/concepts.md", "\nOURS-1\n"), conflicts=True
    ),
    "comments between functions": History(
        work=_rewrite(sample("alpha"), _commented), realistic=True
    ),
    "another text of a log message": History(
        work=_replace(sample("delta"), "Take step 2.", "Take step 2, OURS-1."), realistic=True
    ),
    "a file with another indentation": History(
        work=_rewrite(sample("beta"), _indented), conflicts=True
    ),
    "a file with wrapped signatures": History(work=_rewrite(sample("beta"), _wrapped)),
    "a fixed file renamed": History(work=_move(sample("gamma"), sample("ours"))),
    "a fixed file renamed and edited": History(
        work=_all(_change("gamma", 2, 1), _move(sample("gamma"), sample("ours")))
    ),
    "a fixed file moved to another folder": History(
        work=_move(sample("gamma"), "libs/llmgine/ours/gamma.py")
    ),
    "a folder moved": History(work=_move(SAMPLES, "libs/llmgine/parts")),
    "the spine moved": History(work=_move("libs/llmgine", "libs/engine")),
    "a fixed file deleted": History(work=_delete(sample("delta"))),
    "a file deleted that has no fix": History(work=_delete(sample("omega"))),
    "a folder deleted": History(work=_delete(SAMPLES)),
    "an application deleted": History(work=_delete("apps/chat"), realistic=True),
    "a file split in two": History(work=_split),
    "a handler added": History(
        work=_write("libs/llmgine/src/llmgine/observability/counter.py", HANDLER), realistic=True
    ),
    "a part subclassed in a library": History(
        work=_write("libs/assistant/src/assistant/ours.py", HANDLER), realistic=True
    ),
    "tests added to the spine": History(
        work=_write("libs/llmgine/tests/test_ours.py", '"""OURS-1"""\n'), realistic=True
    ),
    "a setting changed": History(
        work=_replace("settings.toml", 'name = "scripted"', 'name = "ours:build" # OURS-1'),
        realistic=True,
    ),
    "a table added to the settings": History(
        work=_append("settings.toml", "\n[ours]\nlimit = 5 # OURS-1\n"), realistic=True
    ),
    "a dependency added where the template adds one": History(
        work=_replace("pyproject.toml", "dev = [\n", 'dev = [\n  "boltons>=25", # OURS-1\n'),
        realistic=True,
    ),
    "a dependency added elsewhere": History(
        work=_replace(
            "pyproject.toml", '  "assistant",\n', '  "assistant",\n  "httpx2", # OURS-1\n'
        ),
        realistic=True,
    ),
    "a rule of the linter left out": History(
        work=_replace("pyproject.toml", "ignore = [\n", 'ignore = [\n  "E501", # OURS-1\n'),
        realistic=True,
    ),
    "a README and a library of our own": History(work=_rooted, realistic=True),
    "a page deleted": History(work=_delete("docs/extending.md"), realistic=True),
    "an image replaced": History(work=_write(IMAGE, b"\0OURS-1\n")),
    "an image replaced that the template replaces": History(
        work=_write(IMAGE, b"\0OURS-1\n"), to="v0.3.0", conflicts=True
    ),
    "an image added": History(work=_write("docs/ours.png", b"\0OURS-1\n"), realistic=True),
    "line ends of another system": History(
        work=_rewrite(
            sample("alpha"),
            lambda text: text.replace("+ 2\n", "+ 2  # OURS-1\n").replace("\n", "\r\n"),
        )
    ),
    "a file made executable": History(work=_executable),
    "names with a space and an accent": History(
        work=_write("docs/our café page.md", "OURS-1\n"), realistic=True
    ),
    "a link added": History(work=_linked),
    "a version skipped": History(
        work=_all(_change("alpha", 2, 1), _change("gamma", 3, 2)), to="v0.3.0", realistic=True
    ),
    "an edit between two updates": History(work=_twice, to="v0.3.0"),
    "an edit in a file that the template renames": History(
        work=_change("alpha", 2, 1), to="v0.3.0"
    ),
    "an edit in a file that the template removes": History(
        work=_change("beta", 2, 1), to="v0.3.0", conflicts=True
    ),
    "a file renamed that the template removes": History(
        work=_all(_change("beta", 2, 1), _move(sample("beta"), sample("ours"))),
        to="v0.3.0",
        conflicts=True,
    ),
    "a file renamed on both sides": History(
        work=_move(sample("alpha"), sample("ours")), to="v0.3.0", conflicts=True
    ),
    "a page of a name that the template takes later": History(
        work=_write("docs/later.md", "OURS-1\n"), to="v0.3.0", conflicts=True
    ),
    "a handler more": History(
        work=_change("alpha", 2, 1),
        data={"preset": "custom", "handlers": "[console, file, otel]"},
        realistic=True,
    ),
    "an application less": History(
        work=_change("alpha", 2, 1), data={"preset": "custom", "apps": "[]"}, realistic=True
    ),
    "an application less that was edited": History(
        work=_append(CHAT, "\nOURS-1\n"), data={"preset": "custom", "apps": "[]"}, conflicts=True
    ),
    "another store, with a fix in between": History(
        work=_change("delta", 2, 1), data={"preset": "custom", "store": "memory"}, realistic=True
    ),
    "in a folder of a bigger repository": History(
        work=_change("alpha", 2, 1), folder="services/llm", realistic=True
    ),
}


def begin(history: History, rendered: Project, folder: Path) -> Project:
    """A project in a repository of its own, with the history's work committed."""
    place = folder / history.folder if history.folder else folder
    shutil.copytree(rendered.folder, place, ignore=shutil.ignore_patterns(".git"))
    commit(folder)
    project = Project(folder=place)
    history.work(project)
    commit(folder, "Our work")
    return project
