"""`tools/spine` where something odd happens: nothing is lost, nothing counts as done that isn't."""

import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from extensions.questionnaire import TEMPLATE
from tests.conftest import commit, git
from tests.rendering import stand_in
from tests.updating import Project, Releases, sample

pytestmark = pytest.mark.timeout(600)

ALPHA, BETA = sample("alpha"), sample("beta")
TOOL = "tools/spine/lists.py"


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases.of(template, tmp_path_factory.mktemp("releases") / "template")
    for name in ("alpha", "beta"):
        made.edit(sample(name), "value + 6\n", "value + 600\n")
    made.edit(TOOL, "key by key and", "key by key, and")
    made.write("data/first.txt", "First.\n")
    made.release("v0.2.0")
    git(made.folder, "branch", "9.0")
    return made


@pytest.fixture(scope="module")
def rendered(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_in(tmp_path_factory.mktemp("renders")).items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("rendered") / "project"
        yield Project.copied(releases.folder, folder, version="v0.1.0")


@pytest.fixture
def project(rendered: Project, tmp_path: Path) -> Project:
    return rendered.copy(tmp_path / "project")


def _settled(folder: Path, *, base: str, ours: str, theirs: str) -> str | None:
    lists = runpy.run_path(str(TEMPLATE / TOOL))
    for name, text in (("ours", ours), ("base", base), ("theirs", theirs)):
        (folder / name).write_text(text, "utf-8")
    command = ["git", "merge-file", "-p", "--diff3", f"--marker-size={lists['MARK']}"]
    merged = subprocess.run(  # noqa: S603 - git
        [*command, "ours", "base", "theirs"], cwd=folder, capture_output=True, check=False
    )
    return lists["settled"](merged.stdout.decode(), base=base, ours=ours, theirs=theirs)


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        pytest.param("a = 1\n", "# why\na = 1\n", "a = 2\n", id="a comment on a changed key"),
        pytest.param("a = 1\n", "# why\na = 1\n", "b = 2\n", id="a comment on a removed key"),
        pytest.param("[t]\nx = 1\n", "[t]\n", "[t]\nx = 1\nz = 3\n", id="after a removed key"),
        pytest.param(
            "[a]\nx = 1\n[b]\ny = 2\n",
            "[a]\nx = 5\n[b]\n",
            "[a]\nx = 1\n[b]\ny = 2\nz = 3\n",
            id="after a removed key in another table",
        ),
    ],
)
def test_no_comment_is_lost_and_no_key_strays(
    tmp_path: Path, base: str, ours: str, theirs: str
) -> None:
    merged = _settled(tmp_path, base=base, ours=ours, theirs=theirs)
    if merged is not None:
        assert ("# why" in merged) == ("# why" in ours)
        assert ("z = 3" in merged) == ("z = 3" in theirs)
        assert "z = 3" not in merged.rpartition("[")[0]


def test_what_stops_an_update_takes_it_back(project: Project) -> None:
    git(project.folder, "config", "filter.broken.smudge", "false")
    git(project.folder, "config", "filter.broken.clean", "cat")
    git(project.folder, "config", "filter.broken.required", "true")
    attributes = project.text(".gitattributes")
    project.write(".gitattributes", f"{attributes}{BETA} filter=broken\n")
    project.commit()
    before = project.files()
    assert "smudge filter broken failed" in project.spine("update", status=2)
    assert project.files() == before
    assert git(project.folder, "status", "--porcelain") == ""
    assert "no update is unfinished" in project.spine("abort", status=2)


@pytest.mark.heavy
def test_what_was_reset_or_cut_off_is_not_finished(project: Project) -> None:
    project.edit(ALPHA, "value + 6\n", "value + 666\n")
    before = project.files()
    # A branch is no version, whatever it is called.
    assert "v0.1.0 -> v0.2.0" in project.spine("update", status=1)
    git(project.folder, "reset", "--quiet", "--hard")
    assert "nothing of the update to v0.2.0 is left" in project.spine("finish", status=2)
    project.write(ALPHA, "# Resolved by hand.\n")
    project.spine("abort")
    assert project.files() == before
    kept = project.folder / ".git/llmgine-update-aborted/after" / ALPHA
    assert kept.read_text("utf-8") == "# Resolved by hand.\n"

    project.spine("update", status=1)
    state = project.folder / ".git/llmgine-update/state.json"
    state.write_text(state.read_text("utf-8").replace('"whole": true', '"whole": false'), "utf-8")
    assert "was cut off" in project.spine("finish", status=2)
    project.spine("abort")
    assert project.files() == before


@pytest.fixture
def later(releases: Releases, tmp_path: Path) -> Project:
    """A project of 0.2.0; 0.3.0 changes one file alone, 0.4.0 the settings."""
    made = Releases(folder=shutil.copytree(releases.folder, tmp_path / "later"))
    project = Project.copied(made.folder, tmp_path / "later-project", version="v0.2.0")
    made.edit(ALPHA, "value + 600\n", "value + 6000\n")
    made.release("v0.3.0")
    made.append("settings.toml.jinja", "\n[later]\nenabled = true\n")
    made.release("v0.4.0")
    return project


@pytest.mark.heavy
def test_one_conflict_that_was_reset_is_not_finished_and_one_that_was_decided_is(
    later: Project,
) -> None:
    later.edit(ALPHA, "value + 600\n", "value + 666\n")
    update = ("update", "--to", "v0.3.0")
    later.spine(*update, status=1)
    git(later.folder, "reset", "--quiet", "--hard")
    assert "nothing of the update to v0.3.0 is left" in later.spine("finish", status=2)
    later.spine("abort")

    # What is left is the same, but somebody has decided for it.
    later.spine(*update, status=1)
    git(later.folder, "checkout", "--quiet", "HEAD", "--", ALPHA)
    later.spine("finish")
    assert "_commit: v0.3.0\n" in later.text(".copier-answers.yml")


@pytest.mark.heavy
def test_settings_with_line_ends_of_another_system_are_merged_by_key(later: Project) -> None:
    git(later.folder, "rm", "--quiet", ".gitattributes")
    text = later.text("settings.toml") + "\n[ours]\nlimit = 5 # ours\n"
    later.write("settings.toml", text.replace("\n", "\r\n"))
    later.commit()
    assert "settings.toml: merged with your edits" in later.spine("update")
    merged = later.text("settings.toml")
    assert {"[ours]", "limit = 5 # ours", "[later]", "enabled = true"} <= {*merged.split("\r\n")}
    assert "\n" not in merged.replace("\r\n", "")


def test_who_has_the_index_is_told(project: Project) -> None:
    lock = project.folder / ".git" / "index.lock"
    lock.touch()
    refused = project.spine("update", status=2)
    assert refused.startswith("spine: another git is at work here: wait for it, or remove ")
    assert f"{lock} if none is running" in refused
    assert "pristine" in project.spine("status")


@pytest.mark.heavy
def test_a_conflict_in_the_program_itself_does_not_break_it(project: Project) -> None:
    project.edit(TOOL, "key by key and", "key by key or")
    before = project.files()
    assert f"git show :3:./{TOOL}" in project.spine("update", status=1)
    assert f"{TOOL} isn't decided" in project.spine("finish", status=2)
    project.spine("abort")
    assert project.files() == before


@pytest.mark.heavy
def test_marks_of_another_size_are_marks(project: Project) -> None:
    attributes = project.text(".gitattributes")
    project.write(".gitattributes", f"{attributes}*.py conflict-marker-size=12\n")
    project.edit(ALPHA, "value + 6\n", "value + 666\n")
    project.spine("update", status=1)
    assert "still has conflict marks" in project.spine("finish", status=2)
    assert f"conflict marks in {ALPHA}" in project.spine("check", "--offline", status=1)


@pytest.mark.heavy
def test_an_ignored_file_where_a_folder_comes_stays(project: Project) -> None:
    project.edit(".gitignore", "dist/\n", "dist/\n/data\n")
    project.write("data", "Ours, and nowhere else.\n")
    assert "the update brings data/first.txt, and data lies there" in project.spine(
        "update", status=2
    )
    assert project.text("data") == "Ours, and nowhere else.\n"


@pytest.mark.heavy
def test_projects_of_one_repository_leave_each_other_alone(
    project: Project, tmp_path: Path
) -> None:
    top = tmp_path / "top"
    for name in ("one", "two"):
        shutil.copytree(project.folder, top / name, ignore=shutil.ignore_patterns(".git"))
    commit(top)
    one, two = Project(folder=top / "one"), Project(folder=top / "two")
    one.edit(ALPHA, "value + 6\n", "value + 666\n")
    one.spine("update", status=1)
    two.write(BETA, "# Not committed.\n")
    before = two.files()
    for command in ("finish", "abort"):
        assert "no update is unfinished" in two.spine(command, status=2)
    assert "1 edited" in two.spine("status")
    assert two.files() == before


@pytest.mark.heavy
def test_a_version_that_was_moved_is_refused(
    project: Project, releases: Releases, tmp_path: Path
) -> None:
    moved = shutil.copytree(releases.folder, tmp_path / "moved")
    git(moved, "tag", "--force", "v0.1.0", "v0.2.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RENDERS", str(tmp_path))
        answers = project.text(".copier-answers.yml")
        [line] = [line for line in answers.splitlines() if line.startswith("_src_path")]
        project.edit(".copier-answers.yml", line, f'_src_path: "{moved}"  # moved')
        assert "isn't the one that the project was made from" in project.spine("update", status=2)


@pytest.mark.heavy
def test_files_that_git_is_told_not_to_look_at_are_refused(project: Project) -> None:
    git(project.folder, "update-index", "--skip-worktree", "settings.toml")
    project.change("settings.toml", "[provider]", "# ours\n[provider]")
    assert "git is told not to look at settings.toml" in project.spine("update", status=2)


@pytest.mark.heavy
def test_bytecode_and_odd_surroundings_are_in_nobodys_way(project: Project) -> None:
    project.edit(".gitignore", "__pycache__/\n", "")
    git(project.folder, "mv", ALPHA, sample("alphé"))
    project.commit()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PYTHONIOENCODING", "ascii"), ("GIT_DEFAULT_HASH", "sha256")):
            patch.setenv(name, value)
        assert "added" not in project.spine("status")
        assert r"alph\xe9.py, as you renamed it" in project.spine("update")


def test_damaged_files_are_told_in_a_line(project: Project) -> None:
    (project.folder / ".copier-answers.yml").write_bytes(b"caf\xe9: 1\n")
    assert ".copier-answers.yml is damaged" in project.spine("status", status=2)
    project.write("tools/spine/manifest.json", "[]")
    assert "manifest.json is missing or damaged" in project.spine("check", status=1)
