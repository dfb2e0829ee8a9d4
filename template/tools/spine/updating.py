"""The update: both versions are rendered, merged with git, and written into the project."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from applying import State, refuse_lock, write
from drift import edited
from ledger import Fix, brought
from merging import Names, Outcome, merged, tree_of
from project import MANIFEST, Answers, Manifest, Project, SpineError, fingerprint
from source import Source, order

__all__ = ["Update", "update"]

CURRENT = "current"


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What an update did, or would do.

    Attributes:
        old: the version that the project was made from.
        new: the version that it was brought to.
        outcome: what the merge came to; none if there was nothing to do.
        fixes: those of the ledger that the new version has and the old one lacks.
    """

    old: str
    new: str
    outcome: Outcome | None
    fixes: tuple[Fix, ...] = ()


def update(
    project: Project, *, to: str | None, data: Iterable[tuple[str, str]], dry_run: bool
) -> Update:
    """Bring another version in, or other answers.

    Args:
        project: the project; all of it must be committed.
        to: the version, the newest by default; `current` for the one that the project has.
        data: answers that change, by name; with `+` behind its name, a value is added to a list.
        dry_run: look only.

    Raises:
        SpineError: it can't be done; nothing has changed.
    """
    answers = project.answers()
    head = _ready(project, answers)
    if not dry_run:
        refuse_lock(project)
    source = Source.of(answers)
    target = _target(source, answers.version, to)
    changed = _changed(answers, data)
    if target == answers.version and not changed:
        return Update(old=answers.version, new=target, outcome=None)
    with project.scratch(keep=not dry_run) as (git, folder):
        old, new = source.render(
            answers, folder / "renders", [(answers.version, {}), (target, changed)]
        )
        _refuse_another(project, answers.version, (old / MANIFEST).read_text("utf-8"))
        _refuse_strangers(answers, (old / answers.name).read_text("utf-8"))
        _refuse_unknown((new / answers.name).read_text("utf-8"), changed)
        fixes = brought(old, new, Manifest.of((new / MANIFEST).read_text("utf-8")))
        ours = _subtree(project, head)
        trees = (tree_of(git, folder, old), ours, tree_of(git, folder, new))
        names = Names(ours=f"yours-since-{answers.version}", theirs=f"llmgine-{target}")
        always = (answers.name, MANIFEST)
        outcome = merged(git, folder, trees, names, always)
        if not dry_run:
            baseline = {path: git.blob(f"{outcome.tree}:{path}") for path in always}
            write(project, git, (head, ours), outcome, State.of(head, target, baseline))
    return Update(old=answers.version, new=target, outcome=outcome, fixes=fixes)


def _ready(project: Project, answers: Answers) -> str:
    """The commit to start from, if the project may be updated."""
    if project.state.exists():
        raise SpineError(State.read(project).unfinished())
    if fingerprint(answers.text) != project.manifest().answers:
        raise SpineError(edited(answers.name))
    head = project.git.run("rev-parse", "--verify", "--quiet", "HEAD")
    if head.returncode:
        raise SpineError("nothing is committed yet: commit all files, then try again")
    project.refuse_changes()
    return head.stdout.decode().strip()


def _changed(answers: Answers, data: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The answers that change, lists as a whole."""
    changed: dict[str, str] = {}
    added: dict[str, list[str]] = {}
    for name, value in data:
        if name.endswith("+"):
            added.setdefault(name[:-1], []).append(value)
        else:
            changed[name] = value
    lists = answers.lists()
    for name, values in added.items():
        if name in changed:
            raise SpineError(f"{name} is given with = and with +=: use one of them")
        if name not in lists:
            raise SpineError(
                f"{name}+= adds to an answer that is a list; those are: {', '.join(lists)}"
            )
        items = list(dict.fromkeys([*lists[name], *values]))
        if items != lists[name]:
            changed[name] = json.dumps(items)
    return changed


def _target(source: Source, current: str, to: str | None) -> str:
    """The version to update to."""
    if to == CURRENT:
        return current
    if to is not None:
        return _wanted(source, current, to)
    newest = source.newest(current)
    if newest is None:
        raise SpineError(
            f"the template at {source.address} has no version yet: name a branch with --to, or"
            " `--to current` to change answers alone"
        )
    return current if _is_older(newest, current) else newest


def _wanted(source: Source, current: str, to: str) -> str:
    """The version that somebody named, with or without its `v`."""
    known = source.references()
    target = next((name for name in (to, f"v{to}") if name in {*known, current}), None)
    if target is None:
        versions = sorted((at, name) for name in known if (at := order(name)) is not None)
        latest = ", ".join(name for _, name in versions[-5:]) or "none"
        raise SpineError(f"the template has no version {to}; the latest are: {latest}")
    if _is_older(target, current):
        raise SpineError(f"{target} is older than {current}, which the project has")
    return target


def _is_older(one: str, other: str) -> bool:
    first, second = order(one), order(other)
    return first is not None and second is not None and first < second


def _refuse_another(project: Project, version: str, rendered: str) -> None:
    """A version that was moved holds fixes that would never come: they would count as taken out."""
    if project.manifest().files != Manifest.of(rendered).files:
        raise SpineError(
            f"the template's {version} isn't the one that the project was made from: its tag was"
            f" moved, or {MANIFEST} was edited (`git log -p -- {MANIFEST}`)"
        )


def _refuse_strangers(answers: Answers, rendered: str) -> None:
    """An answers file is written anew, so a comment in it would be lost."""
    for line in answers.text.splitlines():
        if line.startswith("#") and line not in rendered.splitlines():
            raise SpineError(f"{answers.name} has a comment that would be lost: {line!r}")


def _refuse_unknown(rendered: str, data: Mapping[str, str]) -> None:
    known = [line.partition(":")[0] for line in rendered.splitlines() if line[:1].isalpha()]
    for name in data:
        if name not in known:
            raise SpineError(f"there is no question {name!r}; the questions: {', '.join(known)}")


def _subtree(project: Project, head: str) -> str:
    done = project.git.run("rev-parse", "--verify", "--quiet", f"{head}:{project.prefix}")
    if done.returncode:
        raise SpineError("nothing of the project is committed: commit it, then try again")
    return done.stdout.decode().strip()
