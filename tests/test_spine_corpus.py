"""The corpus of histories: nothing that a team wrote is lost, no fix is withheld in silence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.corpus import HISTORIES, History, begin, fixes, ours, release_all
from tests.rendering import stand_in
from tests.updating import Project, Releases, sample

Fresh = Callable[[History], dict[str, bytes]]

pytestmark = [pytest.mark.timeout(600), pytest.mark.heavy]


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return release_all(template, tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="module")
def rendered(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("rendered") / "project"
    return Project.copied(releases.folder, folder, version="v0.1.0")


@pytest.fixture(scope="module", autouse=True)
def _renders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every version is rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_in(tmp_path_factory.mktemp("renders")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def fresh(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """What a fresh copy of the version that a history updates to has."""
    made: dict[str, dict[str, bytes]] = {}

    def copy(history: History) -> dict[str, bytes]:
        key = f"{history.to} {sorted(history.data.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp("fresh") / "project"
            data = dict(history.data)
            copied = Project.copied(releases.folder, folder, version=history.to, **data)
            made[key] = copied.files()
        return made[key]

    return copy


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_nothing_is_lost_and_nothing_withheld(
    history: History, rendered: Project, fresh: Fresh, tmp_path: Path
) -> None:
    project = begin(history, rendered, tmp_path / "project")
    before = project.files()
    data = [part for pair in history.data.items() for part in ("--data", "=".join(pair))]
    status = 1 if history.conflicts else 0
    told = project.spine("update", "--to", history.to, *data, status=status)
    after = project.files()
    assert ours(before) <= ours(after)
    reported = [
        line for line in told.splitlines() if line.startswith(("  skipped", "  conflicted"))
    ]
    for path, content in fresh(history).items():
        if not fixes({path: content}) <= fixes(after):
            assert any(path in line for line in reported), path
    if history.conflicts:
        project.spine("abort")
        assert project.files() == before


STEPS = st.integers(0, 11)
NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta", "omega"])
EDITS = st.dictionaries(st.tuples(NAMES, STEPS), st.sampled_from(["line", "above"]), max_size=8)
MOVES = st.dictionaries(NAMES, st.sampled_from(["rename", "move", "delete"]), max_size=2)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits=EDITS, moves=MOVES, to=st.sampled_from(["v0.2.0", "v0.3.0"]))
def test_whatever_is_edited_survives(
    edits: dict[tuple[str, int], str],
    moves: dict[str, str],
    to: str,
    *,
    rendered: Project,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def work(project: Project) -> None:
        for mark, ((name, step), kind) in enumerate(edits.items()):
            _edit(project, name, step, kind=kind, mark=mark)
        for name, kind in moves.items():
            _move(project, name, kind=kind)

    history = History(work=work, to=to)
    project = begin(history, rendered, tmp_path_factory.mktemp("random") / "project")
    before = project.files()
    told, conflicts = _updated(project, to)
    assert ours(before) <= ours(project.files()), told
    if conflicts:
        project.spine("abort")
        assert project.files() == before


def _edit(project: Project, name: str, step: int, *, kind: str, mark: int) -> None:
    line = f"    return value + {step}\n"
    if kind == "line":
        project.change(sample(name), line, f"    return value * {step}  # OURS-{mark}\n")
    else:
        project.change(sample(name), line, f"    # OURS-{mark}\n{line}")


def _move(project: Project, name: str, *, kind: str) -> None:
    place = project.folder / sample(name)
    if kind == "delete":
        place.unlink()
    else:
        new = sample(f"our_{name}") if kind == "rename" else f"libs/ours/{name}.py"
        project.write(new, place.read_bytes())
        place.unlink()


def _updated(project: Project, to: str) -> tuple[str, bool]:
    told = project.spine("update", "--to", to, "--dry-run", status=None)
    conflicts = ", 0 conflicted" not in told
    return project.spine("update", "--to", to, status=int(conflicts)), conflicts
