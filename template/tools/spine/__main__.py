"""What the project made of its spine, and safe updates: `python tools/spine --help`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from drift import as_json, as_markdown, as_text, drift, is_behind, problems
from project import Project, SpineError

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
        help="change an answer, NAME+=VALUE to add to a list; may be repeated",
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


def _update(project: Project, arguments: argparse.Namespace) -> int:
    # Each command loads what it needs, and before it starts: an update writes these files anew.
    from telling import told
    from updating import update

    to, dry_run = arguments.to, arguments.dry_run
    done = update(project, to=to, data=arguments.data, dry_run=dry_run)
    _say(*told(project, done, dry_run=dry_run))
    return 1 if done.outcome and done.outcome.conflicts else 0


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


def _finish(project: Project) -> int:
    from applying import finish

    state = finish(project)
    _say(f"The project is made from {state.target} now: staged; run your checks, commit.")
    return 0


def _abort(project: Project) -> int:
    from applying import abort, aborted

    state = abort(project)
    _say(f"The update to {state.target} is taken back: every file is as it was before.")
    _say(f"What it took away lies in {aborted(project)} until the next time.")
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
            return _finish(project)
        case _:
            return _abort(project)


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
