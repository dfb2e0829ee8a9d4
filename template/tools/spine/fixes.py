"""Which fixes of the spine are alive in this project: their tests are run."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree.ElementTree import Element, parse

from drift import FileState, drift
from ledger import Fix, ledger_of, path_of
from project import Project, SpineError, run_uv

__all__ = ["FORMS", "FixReport", "FixState", "fixes"]

_PYTEST = (
    *("pytest", "-p", "no:cacheprovider", "--verbose", "--maxfail=0"),
    *("--continue-on-collection-errors", "--override-ini=junit_family=xunit1"),
    # The project's own limit is a minute, and there are tests that it can't end.
    *("--override-ini=faulthandler_timeout=120", "-o", "faulthandler_exit_on_timeout=true"),
)
_BEGUN = re.compile(r"^(\S+?)::(\w+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class FixState:
    """What became of a fix in this project.

    Attributes:
        fix: the fix.
        state: alive (its tests pass), lost (one fails), untested (one is gone, or was skipped) or
            absent (an answer leaves out the part that it mends).
        note: what else there is to know.
    """

    fix: Fix
    state: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixReport:
    """All fixes of the ledger.

    Attributes:
        version: the version of the template that the project was made from.
        fixes: every fix.
    """

    version: str
    fixes: tuple[FixState, ...]

    def counted(self) -> dict[str, int]:
        """How many fixes there are of each state."""
        states = [fix.state for fix in self.fixes]
        return {state: states.count(state) for state in dict.fromkeys(sorted(states))}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """What became of a test.

    Attributes:
        kind: passed, failed, skipped, gone or absent.
        told: what pytest says.
        stops: whether it keeps pytest from the other tests.
    """

    kind: str
    told: str = ""
    stops: bool = False


def fixes(project: Project) -> FixReport:
    """Run the tests of every fix, wherever they lie by now.

    Raises:
        SpineError: the ledger can't be read, or pytest can't be run.
    """
    ledger = ledger_of(project)
    spine = drift(project, ask_source=False)
    files = {file.was or file.path: file for file in spine.files}
    results: dict[str, _Result] = {}
    places: dict[str, str] = {}
    for test in [test for fix in ledger for test in fix.tests]:
        found = _placed(project, files.get(path_of(test)), test)
        if isinstance(found, _Result):
            results[test] = found
        else:
            places[test] = found
    ran = _ran(project, [*places.values()])
    results |= {
        test: ran.get(place, _Result(kind="gone", told=f"pytest didn't run {place}"))
        for test, place in places.items()
    }
    states = (_state(fix, results, files) for fix in ledger)
    return FixReport(version=spine.version, fixes=tuple(states))


def _placed(project: Project, file: FileState | None, test: str) -> str | _Result:
    """Where a test lies now, or why it can't be run."""
    path, _, function = test.partition("::")
    if file is None:
        return _Result(kind="absent")
    if file.state == "deleted":
        return _Result(kind="gone", told=f"{path} was deleted")
    if not _holds(project.root / file.path, function):
        return _Result(kind="gone", told=f"{file.path} has no {function}")
    return f"{file.path}::{function}"


def _holds(path: Path, function: str) -> bool:
    """Whether a file has a test; pytest tells what is wrong with one that can't be read."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return True
    found = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return function in found


def _ran(project: Project, tests: Sequence[str]) -> dict[str, _Result]:
    """Run tests, all at once; those that keep pytest from the others are left out of the next run.

    Raises:
        SpineError: pytest can't be run.
    """
    results: dict[str, _Result] = {}
    left = [*dict.fromkeys(tests)]
    while left:
        cases = [*_cases(project, left)]
        stopping = {place: result for place, result in cases if result.stops}
        if not stopping:
            for place, result in cases:
                results[place] = _worse(results.get(place), result)
            break
        found = {test: stopping.get(test) or stopping.get(path_of(test)) for test in left}
        stopped = {test: result for test, result in found.items() if result is not None}
        if not stopped:
            place, result = stopping.popitem()
            raise SpineError(f"pytest can't be run: {place}: {result.told}")
        results |= stopped
        left = [test for test in left if test not in stopped]
    return results


def _worse(one: _Result | None, other: _Result) -> _Result:
    """One result of two that a test has for two of its parameters."""
    order = ("failed", "passed", "skipped")
    both = [result for result in (one, other) if result is not None]
    return min(both, key=lambda result: order.index(result.kind))


def _cases(project: Project, tests: Sequence[str]) -> Iterator[tuple[str, _Result]]:
    """Run tests with the project's own pytest, and tell of each what became of it.

    A file that can't be loaded, or is skipped as a whole, stands for its tests.
    """
    # The spine alone is a member of somebody's workspace, whose root may bring no pytest.
    alone = project.answers().value("preset") == "spine"
    member = ("--package", "llmgine") if alone else ()
    with TemporaryDirectory(prefix="llmgine-spine-") as name:
        report = Path(name).resolve() / "report.xml"
        how = (f"--rootdir={project.root}", f"--junit-xml={report}")
        done = run_uv(project.root, "run", "--quiet", *member, *_PYTEST, *how, *tests)
        if not report.is_file():
            yield _ended(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
            return
        root = parse(report).getroot()  # noqa: S314 - pytest wrote it
    for case in root.iter("testcase"):
        path, function = case.get("file", ""), case.get("name", "").partition("[")[0]
        if case.get("classname"):
            yield f"{path}::{function}", _result(case)
        else:
            yield path, replace(_result(case), stops=True)


def _ended(output: str, errors: str) -> tuple[str, _Result]:
    """The test in which pytest came to its end."""
    begun = _BEGUN.findall(output)
    if not begun:
        lines = (output + errors).strip().splitlines()
        raise SpineError(f"pytest can't be run: {lines[-1] if lines else 'no message'}")
    return "::".join(begun[-1]), _Result(kind="failed", told="pytest can't end it", stops=True)


def _result(case: Element) -> _Result:
    for found in case:
        if found.tag in {"failure", "error"}:
            message, text = found.get("message", ""), (found.text or "").strip()
            told = text.splitlines()[-1] if message == "collection failure" and text else message
            return _Result(kind="failed", told=told.partition("\n")[0].removeprefix("E  ").strip())
        if found.tag == "skipped":
            message = found.get("message", "")
            if message == "collection skipped":
                message = (found.text or "").rpartition("Skipped: ")[2].rstrip("'\")")
            return _Result(kind="skipped", told=message.partition("\n")[0])
    return _Result(kind="passed")


def _state(fix: Fix, results: Mapping[str, _Result], files: Mapping[str, FileState]) -> FixState:
    """What the tests of a fix say about it, the worst first."""
    of_kind = {results[test].kind: (test, results[test]) for test in reversed(fix.tests)}
    if "failed" in of_kind:
        test, result = of_kind["failed"]
        return FixState(fix=fix, state="lost", note=f"{test}: {result.told}")
    if "gone" in of_kind:
        return FixState(fix=fix, state="untested", note=of_kind["gone"][1].told)
    if "skipped" in of_kind:
        test, result = of_kind["skipped"]
        return FixState(fix=fix, state="untested", note=f"{test} was skipped: {result.told}")
    if "passed" not in of_kind:
        return FixState(fix=fix, state="absent", note="an answer leaves out what it mends")
    paths = {path_of(test) for test in fix.tests}
    edited = sorted(path for path in paths if path in files and files[path].state == "edited")
    return FixState(fix=fix, state="alive", note=f"you edited {edited[0]}" if edited else "")


def _title(report: FixReport) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in report.counted().items())
    return f"llmgine {report.version}: {len(report.fixes)} fixes: {counts}"


def _as_text(report: FixReport) -> str:
    """For a terminal."""
    rows = [
        f"  {state.state:<9} {state.fix.id}  {state.fix.title}"
        + (f" ({state.note})" if state.note else "")
        for state in report.fixes
    ]
    return "\n".join([_title(report), *rows])


def _as_markdown(report: FixReport) -> str:
    """For a pull request."""
    rows = [
        f"| {state.state} | {state.fix.id} | {state.fix.title} | {state.note.replace('|', '')} |"
        for state in report.fixes
    ]
    table = ["", "| State | Fix | | Note |", "|---|---|---|---|", *rows]
    return "\n".join([f"**{_title(report)}**", *table])


def _as_json(report: FixReport) -> str:
    """For programs."""
    return json.dumps({**asdict(report), "counts": report.counted()}, indent=2)


FORMS = {"text": _as_text, "json": _as_json, "markdown": _as_markdown}
