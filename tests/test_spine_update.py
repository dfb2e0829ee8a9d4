"""`tools/spine update`, `finish` and `abort`: nothing is lost, no fix is withheld in silence."""

import os
import shutil
from pathlib import Path

import pytest
from llmgine.bootstrap.parts import (
    CONSOLE,
    FALLBACK,
    FILE,
    MCP,
    MIDDLEWARE,
    OTEL,
    PROVIDERS,
    RETRY,
    STORES,
)

from extensions.answers import Answers
from tests.conftest import commit, git
from tests.updating import SAMPLES, Project, Releases, sample

pytestmark = pytest.mark.timeout(600)

IMAGE = f"{SAMPLES}/image.bin"
SETTINGS = "\n[budget]\nlimit = 5 # ours\n"


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Versions 0.1.0, 0.2.0 with fixes only, and 0.3.0 with renames, removals and additions."""
    made = Releases.of(template, tmp_path_factory.mktemp("releases") / "template")
    for name in ("alpha", "beta", "gamma", "delta", "omega"):
        made.edit(sample(name), "value + 6", "value + 600")
    made.edit("pyproject.toml.jinja", "dev = [\n", 'dev = [\n  "attrs>=25",\n')
    made.append("settings.toml.jinja", "\n[later]\nenabled = true\n")
    made.release("v0.2.0")
    made.rename(sample("alpha"), sample("first"))
    made.edit(sample("first"), "value + 9", "value + 900")
    made.remove(sample("beta"))
    made.write(IMAGE, b"\0third\n")
    made.write("docs/later.md", "# Later\n")
    made.write(sample("later"), "LATER = True\n")
    made.release("v0.3.0")
    return made


@pytest.fixture(scope="module")
def rendered(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("rendered") / "project"
    return Project.copied(releases.folder, folder, version="v0.1.0")


@pytest.fixture
def project(rendered: Project, tmp_path: Path) -> Project:
    return rendered.copy(tmp_path / "project")


def _work(project: Project) -> None:
    """What a team does to its spine and beside it."""
    project.change(sample("alpha"), "value + 2", "value + 222")
    project.change(sample("beta"), "value + 2", "value + 222")
    git(project.folder, "mv", sample("gamma"), sample("ours"))
    (project.folder / sample("delta")).unlink()
    project.change(sample("omega"), "value + 6", "value + 666")
    project.write(IMAGE, b"\0ours\n")
    project.write("docs/later.md", "# Our later\n")
    project.change("pyproject.toml", "dev = [\n", 'dev = [\n  "boltons>=25", # ours\n')
    project.write("settings.toml", project.text("settings.toml") + SETTINGS)
    project.commit()


def _resolve(project: Project) -> None:
    project.write(sample("omega"), project.text(sample("omega")).split("<<<<<<<")[0])
    project.write("docs/later.md", "# Both\n")


def test_fixes_meet_the_teams_own_work(project: Project) -> None:
    _work(project)
    before = project.files()
    told = project.spine("update", "--dry-run", status=1)
    assert "A dry run: nothing has changed." in told
    assert project.files() == before
    assert git(project.folder, "status", "--porcelain") == ""
    project.spine("abort", status=2)

    assert project.spine("update", status=1).split("\n")[:-3] == told.split("\n")[:-2]
    assert f"conflicted  {sample('omega')}: you and the template changed the same" in told
    assert f"conflicted  {sample('beta')}: the template removed it, and you edited it" in told
    assert f"conflicted  {IMAGE}: you and the template changed a file that isn't text" in told
    assert "conflicted  docs/later.md: you and the template added different files" in told
    assert f"landed      {sample('gamma')}: in {sample('ours')}, as you renamed it" in told
    assert f"landed      {sample('first')}: merged with your edits" in told
    assert f"skipped     {sample('delta')}: you deleted it" in told
    assert "landed      pyproject.toml: merged with your edits" in told
    assert "landed      settings.toml: merged with your edits" in told

    after = project.files()
    assert b"<<<<<<< yours-since-v0.1.0\n" in after[sample("omega")]
    assert b">>>>>>> llmgine-v0.3.0\n" in after[sample("omega")]
    assert {b"value + 666", b"value + 600"} <= {
        line.strip().removeprefix(b"return ") for line in after[sample("omega")].splitlines()
    }
    assert all(line in after[sample("first")] for line in (b" 222", b" 600", b" 900"))
    assert b"value + 600" in after[sample("ours")]
    assert (after[sample("beta")], after[IMAGE]) == (before[sample("beta")], before[IMAGE])
    assert not {sample("alpha"), sample("gamma"), sample("delta")} & {*after}
    dependencies = after["pyproject.toml"].decode().partition("dev = [\n")[2].splitlines()[:2]
    assert sorted(dependencies) == ['  "attrs>=25",', '  "boltons>=25", # ours']
    settings = after["settings.toml"].decode()
    assert SETTINGS in settings
    assert "\n[later]\nenabled = true\n" in settings

    # The conflicts wait: nothing else may begin, and the project is still made from the old one.
    assert "_commit: v0.1.0\n" in project.text(".copier-answers.yml")
    assert "is unfinished" in project.spine("update", status=2)
    assert "is unfinished" in project.spine("check", status=1)
    assert "is unfinished" in project.spine("status")
    assert "still has conflict marks" in project.spine("finish", status=2)

    _resolve(project)
    project.spine("abort")
    assert project.files() == before
    assert git(project.folder, "status", "--porcelain") == ""

    project.spine("update", status=1)
    _resolve(project)
    assert "isn't decided: `git add` or `git rm` it" in project.spine("finish", status=2)
    git(project.folder, "add", IMAGE)
    git(project.folder, "rm", "--quiet", sample("beta"))
    project.spine("finish")
    assert "_commit: v0.3.0\n" in project.text(".copier-answers.yml")
    project.commit()
    assert "Nothing is in the way" in project.spine("check")
    assert "Nothing to do" in project.spine("update")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(Answers(), id="minimal"),
        pytest.param(Answers(preset="spine"), id="spine", marks=pytest.mark.heavy),
        pytest.param(
            Answers(preset="custom", apps=(), handlers=("file",), provider="local", ci="none"),
            id="custom",
            marks=pytest.mark.heavy,
        ),
    ],
)
def test_an_unedited_project_becomes_a_fresh_copy(
    releases: Releases, tmp_path: Path, answers: Answers
) -> None:
    data = answers.as_data()
    project = Project.copied(releases.folder, tmp_path / "p", version="v0.1.0", **data)
    assert "0 conflicted, 0 skipped" in project.spine("update")
    fresh = Project.copied(releases.folder, tmp_path / "fresh", version="v0.3.0", **data)
    assert project.files() == fresh.files()


@pytest.mark.heavy
def test_a_part_that_is_answered_away_leaves_what_was_edited(project: Project) -> None:
    project.edit("apps/chat/README.md", "# ", "# Our ")
    told = project.spine("update", "--to", "current", "--data", "preset=spine", status=1)
    assert "conflicted  apps/chat/README.md: the template removed it, and you edited it" in told
    assert "# Our " in project.text("apps/chat/README.md")
    assert not (project.folder / "apps/chat/pyproject.toml").exists()


@pytest.mark.heavy
def test_parts_come_by_the_commands_that_errors_name(releases: Releases, tmp_path: Path) -> None:
    bare = Answers(preset="custom", handlers=(), store="memory")
    project = Project.copied(releases.folder, tmp_path / "p", version="v0.1.0", **bare.as_data())
    rooms = (CONSOLE, FILE, OTEL, PROVIDERS, RETRY, FALLBACK, STORES, MCP, *MIDDLEWARE.values())
    parts = {
        f"{room.package}.{name}": answer
        for room in rooms
        for name, answer in room.answers.items()
        if name != "litellm"  # not beside openai
    }
    answers = [f"--data={answer}" for answer in parts.values()]
    assert ", 0 conflicted, 0 skipped" in project.spine("update", "--to", "current", *answers)
    for part in parts:
        place = project.folder / "libs/llmgine/src" / part.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), part


@pytest.mark.heavy
def test_in_a_subfolder_of_a_bigger_repository(project: Project, tmp_path: Path) -> None:
    bigger = tmp_path / "bigger"
    shutil.copytree(project.folder, bigger / "services/llm", ignore=shutil.ignore_patterns(".git"))
    (bigger / "other.txt").write_text("Theirs.\n", "utf-8")
    (bigger / "services/neighbour.txt").write_text("Theirs.\n", "utf-8")
    commit(bigger)
    inside = Project(folder=bigger / "services/llm")
    _work(inside)
    before = inside.files()
    # Work beside the project is none of the update's business.
    (bigger / "other.txt").write_text("Changed.\n", "utf-8")
    (bigger / "staged.txt").write_text("Staged.\n", "utf-8")
    git(bigger, "add", "staged.txt")

    inside.spine("update", status=1)
    assert "value + 600" in inside.text(sample("ours"))
    listed = git(bigger, "status", "--porcelain").splitlines()
    assert f"UU services/llm/{sample('omega')}" in listed
    assert {" M other.txt", "A  staged.txt"} <= {*listed}
    assert (bigger / "services/neighbour.txt").exists()
    inside.spine("abort")
    assert inside.files() == before
    listed = git(bigger, "status", "--porcelain").splitlines()
    assert listed == [" M other.txt", "A  staged.txt"]


@pytest.mark.heavy
def test_in_a_worktree_from_a_bundle_without_a_network(
    project: Project, releases: Releases, tmp_path: Path
) -> None:
    bundle = tmp_path / "template.bundle"
    git(releases.folder, "bundle", "create", "--quiet", str(bundle), "--all")
    answers = project.text(".copier-answers.yml")
    _at(project, answers, bundle)
    git(project.folder, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    worktree = Project(folder=tmp_path / "worktree")
    offline = {"UV_OFFLINE": "1", "GIT_ALLOW_PROTOCOL": "file"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in offline.items():
            patch.setenv(name, value)
        assert "0 conflicted, 0 skipped" in worktree.spine("update")
    assert "value + 600" in worktree.text(sample("omega"))
    assert "value + 600" not in project.text(sample("omega"))

    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(releases.folder), str(bare))
    _at(project, project.text(".copier-answers.yml"), bare)
    project.spine("update", "--to", "0.2.0")
    assert "_commit: v0.2.0\n" in project.text(".copier-answers.yml")


def _at(project: Project, answers: str, source: Path) -> None:
    [line] = [line for line in answers.splitlines() if line.startswith("_src_path")]
    project.edit(".copier-answers.yml", line, f"_src_path: {source}")


@pytest.mark.heavy
@pytest.mark.parametrize("named", [".copier-answers.llmgine.yml", "config/llmgine/answers.yml"])
def test_the_answers_may_have_another_name(releases: Releases, tmp_path: Path, named: str) -> None:
    project = Project.copied(
        releases.folder, tmp_path / "p", version="v0.1.0", answers_file=named, preset="spine"
    )
    assert not (project.folder / ".copier-answers.yml").exists()
    assert "0 conflicted" in project.spine("update")
    assert "_commit: v0.3.0\n" in project.text(named)


@pytest.mark.heavy
def test_line_ends_and_modes_stay(project: Project) -> None:
    project.write(sample("omega"), project.text(sample("omega")).replace("\n", "\r\n"))
    (project.folder / sample("alpha")).chmod(0o755)
    project.commit()
    project.spine("update", "--to", "v0.2.0")
    assert "value + 600" in project.text(sample("omega"))
    assert os.access(project.folder / sample("alpha"), os.X_OK)
    assert "value + 600" in project.text(sample("alpha"))


@pytest.mark.heavy
def test_what_the_two_sides_break_together_is_a_conflict(
    releases: Releases, tmp_path: Path
) -> None:
    own = Releases(folder=shutil.copytree(releases.folder, tmp_path / "own"))
    project = Project.copied(own.folder, tmp_path / "project", version="v0.3.0")
    project.edit("settings.toml", "[provider]\n", "[twice]\na = 1\n\n[provider]\n")
    own.append("settings.toml.jinja", "\n[twice]\na = 2\n")
    own.release("v0.4.0")
    told = project.spine("update", status=1)
    assert "conflicted  settings.toml: both sides' lines are in it, but together they fail" in told


def _dirty(project: Project) -> None:
    project.change("settings.toml", "[provider]", "# ours\n[provider]")


def _untracked(project: Project) -> None:
    project.write("notes.txt", "Ours.\n")


def _no_commit(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    git(project.folder, "init", "--quiet")


def _no_answers(project: Project) -> None:
    git(project.folder, "rm", "--quiet", ".copier-answers.yml")
    project.commit()


def _edited_answers(project: Project) -> None:
    project.edit(".copier-answers.yml", "my-app", "your-app")


def _gone_source(project: Project) -> None:
    _at(project, project.text(".copier-answers.yml"), Path("/nowhere/at-all"))


def _damaged(project: Project) -> None:
    project.write("tools/spine/manifest.json", "{")


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (_dirty, (), "has changes that aren't committed (settings.toml)"),
        (_untracked, (), "has changes that aren't committed (notes.txt)"),
        (_no_commit, (), "nothing is committed yet"),
        (_no_answers, (), ".copier-answers.yml is missing"),
        (_edited_answers, (), ".copier-answers.yml was edited by hand"),
        (_gone_source, (), "the template can't be reached at /nowhere/at-all"),
        (_damaged, (), "manifest.json is missing or damaged"),
        (None, ("--to", "v9.9.9"), "has no version v9.9.9; the latest are: v0.1.0, v0.2.0"),
    ],
)
def test_refusals_are_one_line_and_change_nothing(
    project: Project, spoil: object, arguments: tuple[str, ...], message: str
) -> None:
    if callable(spoil):
        spoil(project)
    before = project.files()
    refused = project.spine("update", *arguments, status=2)
    assert message in refused
    assert refused.startswith("spine: ")
    assert refused.count("\n") == 1
    assert project.files() == before


@pytest.mark.parametrize("command", ["finish", "abort"])
def test_without_an_update_there_is_nothing_to_finish_or_abort(
    project: Project, command: str
) -> None:
    assert "no update is unfinished" in project.spine(command, status=2)


def test_a_downgrade_is_refused(releases: Releases, tmp_path: Path) -> None:
    project = Project.copied(releases.folder, tmp_path / "project", version="v0.2.0")
    refused = project.spine("update", "--to", "0.1.0", status=2)
    assert refused == "spine: v0.1.0 is older than v0.2.0, which the project has\n"


@pytest.mark.heavy
def test_what_is_asked_wrongly_is_refused(project: Project) -> None:
    told = project.spine("update", "--data", "colour=blue", status=2)
    assert "there is no question 'colour'; the questions: apps, ci," in told
    told = project.spine("update", "--data", "provider=parrot", status=2)
    assert "can't be rendered" in told
    assert "'parrot' is not in" in told
    assert "isn't of the form NAME=VALUE" in project.spine("update", "--data", "x", status=2)
    told = project.spine("update", "--data", "store+=memory", status=2)
    lists = "apps, extras, handlers, other_providers"
    assert told == f"spine: store+= adds to an answer that is a list; those are: {lists}\n"
    both = ("--data", "extras=[mcp]", "--data", "extras+=resilience")
    told = project.spine("update", *both, status=2)
    assert told == "spine: extras is given with = and with +=: use one of them\n"
    told = project.spine("update", "--to", "current", "--data", "handlers+=file")
    assert told == "Nothing to do: the project has v0.1.0.\n"
    told = project.spine("update", "--data", "handlers+=otel", status=2)
    assert "choose others with preset=custom" in told


@pytest.mark.heavy
def test_a_file_that_git_ignores_is_not_written_over(project: Project) -> None:
    project.edit(".gitignore", "dist/\n", "dist/\n/docs/later.md\n")
    project.write("docs/later.md", "Ours, and nowhere else.\n")
    before = project.files()
    assert "the update brings docs/later.md" in project.spine("update", status=2)
    assert project.files() == before
    assert "no update is unfinished" in project.spine("abort", status=2)
