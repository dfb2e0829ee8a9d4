"""What the project made of its spine, and safe updates: `python tools/spine --help`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from applying import abort, aborted, finish
from drift import as_json, as_markdown, as_text, drift, is_behind, problems
from merging import Change
from project import Project, SpineError
from updating import Update, update

DESCRIPTION = "Look at what the project changed in its spine, and bring later versions in."
STATUSES = """\
Exit statuses: 0 all is well; 1 conflicts, problems or lost fixes that somebody must look at;
2 refused, nothing has changed; 3 (check only) nothing but a newer version.
"""
_FORMS = {"text": as_text, "json": as_json, "markdown": as_markdown}


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found):
        raise argparse.ArgumentTypeError(f"{text!r} isn't of the form NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python tools/spine", description=DESCRIPTION, epilog=STATUSES)
    commands = parser.add_subparsers(dest="command", required=True)
    looks = commands.add_parser("status", help="what the project changed in the spine; offline")
    looks.add_argument("--format", choices=_FORMS, default="text")
    more = looks.add_mutually_exclusive_group()
    more.add_argument("--behind", action="store_true", help="ask the template for a newer version")
    more.add_argument(
        "--fixes", action="store_true", help="which fixes are alive here: runs the tests of each"
    )
    updates = commands.add_parser("update", help="bring a version in, merged with what you changed")
    updates.add_argument("--to", metavar="VERSION", help="default: the newest; current: the same")
    updates.add_argument(
        "--data",
        metavar="NAME=VALUE",
        type=_pair,
        action="append",
        default=[],
        help="change an answer; may be repeated",
    )
    updates.add_argument("--dry-run", action="store_true", help="say what would happen; no change")
    checks = commands.add_parser("check", help="for CI: is anything in the way of an update?")
    checks.add_argument("--offline", action="store_true", help="don't ask for a newer version")
    commands.add_parser("finish", help="record the new version once all conflicts are resolved")
    commands.add_parser("abort", help="take an unfinished update back")
    return parser


def _say(*lines: str) -> None:
    # A file may have a name that the terminal can't show.
    form = sys.stdout.encoding
    text = "".join(f"{line}\n" for line in lines).encode(form, "backslashreplace").decode(form)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has gone (`| head`); what is done is done, and has its exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _told(change: Change) -> str:
    detail = f": {change.detail}" if change.detail else ""
    return f"  {change.outcome:<10}  {change.path}{detail}"


def _update(project: Project, arguments: argparse.Namespace) -> int:
    to, dry_run = arguments.to, arguments.dry_run
    done = update(project, to=to, data=dict(arguments.data), dry_run=dry_run)
    if done.outcome is None:
        _say(f"Nothing to do: the project has {done.new}.")
        return 0
    changes = done.outcome.changes
    counts = ", ".join(
        f"{sum(change.outcome == outcome for change in changes)} {outcome}"
        for outcome in ("landed", "conflicted", "skipped")
    )
    _say(f"llmgine {done.old} -> {done.new}: {_files(len(changes))}: {counts}")
    plain = [change for change in changes if change.outcome == "landed" and not change.yours]
    _say(*(_told(change) for change in changes if change not in plain))
    if plain:
        _say(f"  landed      {_files(len(plain))} that you had not changed")
    _say(*(f"  brings      {fix.id}: {fix.title}" for fix in done.fixes))
    _say(*_next_steps(project, done, dry_run=dry_run))
    return 1 if done.outcome.conflicts else 0


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


def _status(project: Project, arguments: argparse.Namespace) -> int:
    if not arguments.fixes:
        _say(_FORMS[arguments.format](drift(project, ask_source=arguments.behind)))
        return 0
    # A plain status is quick, and this needs modules that take time to load.
    from fixes import FORMS, fixes

    report = fixes(project)
    _say(FORMS[arguments.format](report))
    return 1 if "lost" in report.counted() else 0


def _check(project: Project, arguments: argparse.Namespace) -> int:
    found = problems(project)
    _say(*found)
    if found:
        return 1
    newer = None if arguments.offline else is_behind(project)
    if newer:
        _say(f"{newer} of the template is out: `python tools/spine update --dry-run`")
        return 3
    _say("Nothing is in the way of an update.")
    return 0


def _run(project: Project, arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "status":
            return _status(project, arguments)
        case "update":
            return _update(project, arguments)
        case "check":
            return _check(project, arguments)
        case "finish":
            state = finish(project)
            _say(f"The project is made from {state.target} now: staged; run your checks, commit.")
            return 0
        case _:
            state = abort(project)
            _say(f"The update to {state.target} is taken back: every file is as it was before.")
            _say(f"What it took away lies in {aborted(project)} until the next time.")
            return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        return _run(Project.found(Path(__file__).resolve().parents[2]), parsed)
    except SpineError as error:
        sys.stderr.write(f"spine: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"spine: {error}; see `python tools/spine status`\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("spine: interrupted; see `python tools/spine status`\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
