"""What is looked at once for several projects is the same in all of them."""

from pathlib import Path

import pytest

from tests.sharing import Ledger, Tree

FILES = {
    "libs/llmgine/src/llmgine/__init__.py": "",
    "libs/llmgine/src/llmgine/bus.py": "import llmgine.errors\n",
    "libs/llmgine/src/llmgine/errors.py": "import pydantic\n",
    "libs/llmgine/src/llmgine/parts.py": "from importlib import import_module\n",
    "libs/llmgine/src/llmgine/tools.py": "",
    "libs/llmgine/tests/conftest.py": "",
    "libs/llmgine/tests/test_bus.py": "from llmgine.bus import Bus\n",
    "libs/llmgine/tests/test_parts.py": '"""No subprocess."""\nimport llmgine.parts\n',
    "libs/llmgine/tests/test_program.py": "import subprocess\n",
    "libs/llmgine/tests/test_app.py": "def test_app(start_app): ...\n",
    "apps/chat/tests/test_chat.py": "import llmgine.bus\n",
}
BUS = "libs/llmgine/tests/test_bus.py"


def key(folder: Path, changes: dict[str, str | None], pydantic: str = "2") -> str:
    """The key of a test in a project with some files that are other ones, or none."""
    for path, text in {**FILES, **changes}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text, "utf-8")
    return Tree(folder, {"pydantic": [f"pydantic=={pydantic}"]}).key(folder / BUS)


@pytest.mark.parametrize(
    "path",
    [
        BUS,
        "libs/llmgine/src/llmgine/__init__.py",
        "libs/llmgine/src/llmgine/bus.py",
        "libs/llmgine/src/llmgine/errors.py",
        "libs/llmgine/tests/conftest.py",
    ],
)
def test_a_file_is_another_one_with_what_it_imports(tmp_path: Path, path: str) -> None:
    before = key(tmp_path, {})
    assert key(tmp_path, {path: f"{FILES[path]}# other\n"}) != before
    assert key(tmp_path, {}) == before
    if path != BUS:
        assert key(tmp_path, {path: None}) != before


def test_what_it_does_not_import_is_none_of_its_business(tmp_path: Path) -> None:
    before = key(tmp_path / "one", {})
    changes: dict[str, str | None] = {
        "libs/llmgine/src/llmgine/tools.py": None,
        "apps/chat/tests/test_chat.py": "# other\n",
    }
    assert key(tmp_path / "two", changes) == before
    assert key(tmp_path / "two", changes, pydantic="3") != before


def test_tests_that_look_about_are_known(tmp_path: Path) -> None:
    key(tmp_path, {})
    tree = Tree(tmp_path, {})
    about = {path.name for path in tree.tests() if tree.looks_about(path)}
    assert about == {"test_parts.py", "test_program.py", "test_app.py", "test_chat.py"}
    assert len(tree.tests()) == 5


def test_what_has_passed_is_not_looked_at_again() -> None:
    ledger, one, other = Ledger(), Path("one.py"), Path("other.py")
    ledger.passed("tests", ["a"])
    assert ledger.missing("tests", {one: "a", other: "b"}) == [other]
    assert ledger.missing("types", {one: "a"}) == [one]
