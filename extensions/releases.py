"""What a release owes the projects that are made from earlier ones; tests hold the template to it.

A version is a tag `vX.Y.Z`. Each check takes texts or lists and returns what is wrong, a line each;
`problems` runs all of them on a repository, against its newest tag where it has one.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Version",
    "changelog_problems",
    "ledger_problems",
    "missing_tests",
    "moved_files",
    "newest_tag",
    "problems",
    "version_problems",
]

Version = tuple[int, ...]

SPINE = ("libs/llmgine/", "tools/spine/")
LEDGER = "tools/spine/fixes.toml"
FIXED = "### Fixed in the spine"
_TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_HEADING = re.compile(r"^## (\d+\.\d+\.\d+) - (unreleased|\d{4}-\d\d-\d\d)$")
_ID = re.compile(r"LF-\d{3,}")
_TESTS = "libs/llmgine/tests/"


@dataclass(frozen=True, kw_only=True)
class _Section:
    """One version in the changelog.

    Attributes:
        version: the version.
        state: its date, or `unreleased`.
        fixes: the entries about fixes in the spine.
    """

    version: str
    state: str
    fixes: tuple[str, ...]


def _numbers(version: str) -> Version:
    return tuple(map(int, version.removeprefix("v").split(".")))


def _fixes(ledger: str) -> list[dict[str, Any]]:
    return tomllib.loads(ledger).get("fix", [])


def _sections(changelog: str) -> list[_Section]:
    found: list[_Section] = []
    for part in re.split(r"^(?=## )", changelog, flags=re.MULTILINE)[1:]:
        heading = _HEADING.match(part.partition("\n")[0])
        if heading is None:
            message = f"CHANGELOG.md: expected `## X.Y.Z - date`, found {part.splitlines()[0]!r}"
            raise ValueError(message)
        fixed = re.split(r"^#+ ", part.partition(f"\n{FIXED}\n")[2], flags=re.MULTILINE)[0]
        entries = re.findall(r"^- .*(?:\n[ ]+\S.*)*", fixed, re.MULTILINE)
        found.append(_Section(version=heading[1], state=heading[2], fixes=tuple(entries)))
    return found


def changelog_problems(changelog: str, ledger: str) -> Iterator[str]:
    """Each fix of the changelog is in the ledger, and the other way round."""
    since = {fix["id"]: fix["since"] for fix in _fixes(ledger)}
    named: dict[str, str] = {}
    for section in _sections(changelog):
        for entry in section.fixes:
            ids = _ID.findall(entry)
            if not ids:
                yield f"CHANGELOG.md, {section.version}: no id in {entry!r}: add it to {LEDGER}"
            named |= dict.fromkeys(ids, section.version)
    for name, version in named.items():
        if since.get(name) != version:
            yield f"CHANGELOG.md names {name} under {version}, {LEDGER} under {since.get(name)}"
    for name in since.keys() - named.keys():
        yield f"{LEDGER} has {name}, CHANGELOG.md has it nowhere: put it under {FIXED!r}"


def missing_tests(ledger: str, tests: Mapping[str, str]) -> Iterator[str]:
    """Each fix has an id of its own, and tests that ship with the spine.

    Args:
        ledger: the ledger.
        tests: the text of each file of the spine's tests, by its path in a project.
    """
    ids = [fix["id"] for fix in _fixes(ledger)]
    if not all(map(_ID.fullmatch, ids)) or ids != sorted({*ids}):
        yield f"{LEDGER}: ids are `LF-` with digits, each once, in order; found {ids}"
    for fix in _fixes(ledger):
        if not fix["tests"]:
            yield f"{fix['id']} has no test"
        for test in fix["tests"]:
            path, _, function = test.partition("::")
            if not path.startswith(_TESTS) or function not in _functions(tests.get(path, "")):
                yield f"{fix['id']}: there is no test {test}"


def _functions(text: str) -> set[str]:
    body = ast.parse(text).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def ledger_problems(old: str, new: str) -> Iterator[str]:
    """What was released stays in the ledger: projects look for it by its id."""
    after = {fix["id"]: fix["since"] for fix in _fixes(new)}
    for fix in _fixes(old):
        if after.get(fix["id"]) != fix["since"]:
            yield f"{fix['id']} was released in {fix['since']}, the ledger has it no longer"


def moved_files(old: Collection[str], new: Collection[str]) -> Iterator[str]:
    """Files of the spine that were renamed or removed: an update by Copier drops their edits."""
    for path in sorted({*old} - {*new}):
        if path.startswith(SPINE):
            yield f"{path} was renamed or removed: that needs a new first number"


def version_problems(
    version: str, changelog: str, tag: str | None, *, code_changed: bool, ledger: str
) -> Iterator[str]:
    """The version is told in the changelog, comes after the tag, and its numbers are true.

    Args:
        version: what `pyproject.toml` says.
        changelog: the changelog.
        tag: the newest tag.
        code_changed: whether the code of the spine isn't the tag's.
        ledger: the ledger.
    """
    sections = _sections(changelog)
    versions = [_numbers(section.version) for section in sections]
    if not sections or sections[0].version != version or versions != sorted(versions)[::-1]:
        yield f"CHANGELOG.md doesn't begin with {version}, or isn't in order"
    if open_ := [section.version for section in sections[1:] if section.state == "unreleased"]:
        yield f"CHANGELOG.md has no date for {', '.join(open_)}"
    if tag is None:
        return
    now, then = _numbers(version), _numbers(tag)
    if now < then:
        yield f"the version {version} is older than the tag {tag}"
    if now == then and code_changed:
        yield f"the spine has changed since {tag}: set the next version"
    if now[:2] == then[:2] and now > then and code_changed:
        fixed = any(fix["since"] == version for fix in _fixes(ledger))
        if not fixed:
            yield f"{version} changes the spine and mends nothing: name its fixes in {LEDGER}"


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def newest_tag(repository: Path) -> str | None:
    """The newest version that the checkout comes from."""
    tags = _git(repository, "tag", "--merged", "HEAD").split()
    return max(filter(_TAG.fullmatch, tags), key=_numbers, default=None)


def _at_tag(repository: Path, tag: str) -> dict[str, str]:
    """The blob id of each file, by its path in a project."""
    listed = _git(repository, "ls-tree", "-r", "-z", f"{tag}:template").split("\0")
    parted = (line.partition("\t") for line in listed if line)
    return {path.removesuffix(".jinja"): entry.split()[2] for entry, _, path in parted}


def _now(repository: Path) -> dict[str, str]:
    """The same of the files that lie there, as far as git doesn't ignore them."""
    how = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "template")
    names = {name for name in _git(repository, *how).split("\0") if (repository / name).is_file()}
    paths = sorted(names - {""})
    ids = _git(repository, "hash-object", "--no-filters", "--", *paths).split() if paths else []
    places = (path.removeprefix("template/").removesuffix(".jinja") for path in paths)
    return dict(zip(places, ids, strict=True))


def _text_at(repository: Path, tag: str, path: str) -> str:
    return _git(repository, "show", f"{tag}:template/{path}")


def problems(repository: Path) -> list[str]:
    """What the next release of a repository of the template would break."""
    version = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"][
        "version"
    ]
    changelog = (repository / "CHANGELOG.md").read_text("utf-8")
    ledger = (repository / "template" / LEDGER).read_text("utf-8")
    now, tag = _now(repository), newest_tag(repository)
    tests = {
        path: (repository / "template" / path).read_text("utf-8")
        for path in now
        if path.startswith(_TESTS) and path.endswith(".py")
    }
    before = _at_tag(repository, tag) if tag else {}
    found = [*changelog_problems(changelog, ledger), *missing_tests(ledger, tests)]
    code_changed = _code(before) != _code(now)
    found += version_problems(version, changelog, tag, code_changed=code_changed, ledger=ledger)
    if tag and LEDGER in before:
        found += ledger_problems(_text_at(repository, tag, LEDGER), ledger)
    if tag and _numbers(version)[0] == _numbers(tag)[0]:
        found += moved_files(before, now)
    return found


def _code(files: Mapping[str, str]) -> dict[str, str]:
    return {path: name for path, name in files.items() if path.startswith("libs/llmgine/src/")}
