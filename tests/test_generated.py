"""What is made from something else is up to date, and what must agree does."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from extensions.__main__ import generated
from extensions.development import check_settings
from extensions.questionnaire import ROOT, TEMPLATE, template_files

SPINE = TEMPLATE / "libs" / "llmgine"
SETTINGS: dict[str, Any] = tomllib.loads(check_settings())["tool"]


@pytest.mark.parametrize("path", sorted(generated()), ids=lambda path: path.name)
def test_generated_text_is_up_to_date(path: Any) -> None:
    assert path.read_text("utf-8") == generated()[path], "run `uv run just generate`"


def test_the_spine_runs_its_tests_under_the_same_settings_wherever_it_is_taken() -> None:
    spine = tomllib.loads((SPINE / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]
    ours = SETTINGS["pytest"]["ini_options"]
    for name, value in spine["ini_options"].items():
        assert value == (["tests"] if name == "testpaths" else ours[name]), name


def test_the_spine_asks_for_its_test_packages_as_the_workspace_does() -> None:
    spine = tomllib.loads((SPINE / "pyproject.toml").read_text("utf-8"))
    root = (TEMPLATE / "pyproject.toml.jinja").read_text("utf-8")
    wanted = {
        *spine["dependency-groups"]["dev"],
        *spine["project"]["optional-dependencies"]["testing"],
    }
    assert all(f'"{package}"' in root for package in wanted - {"llmgine[testing]"})


def test_one_licence() -> None:
    assert (ROOT / "LICENSE").read_bytes() == (SPINE / "LICENSE").read_bytes()


def test_contracts_and_bus_are_forbidden_every_package_of_the_spine() -> None:
    spine = tomllib.loads((SPINE / "pyproject.toml").read_text("utf-8"))
    lines = [*spine["project"]["dependencies"]]
    lines += [
        line for extra in spine["project"]["optional-dependencies"].values() for line in extra
    ]
    packages = {re.split(r"[\[<>=; ]", line)[0].lower() for line in lines}
    modules = {
        module
        for module, distributions in packages_distributions().items()
        if packages & {name.lower() for name in distributions} and not module.startswith("_")
    }
    rules = {rule["name"]: rule for rule in SETTINGS["importlinter"]["contracts"]}
    contract = rules["Contracts and bus need the standard library alone"]
    assert modules
    assert modules <= set(contract["forbidden_modules"])


def test_contracts_and_bus_import_the_standard_library_alone() -> None:
    rooms = ("libs/llmgine/src/llmgine/contracts/", "libs/llmgine/src/llmgine/bus/")
    paths = [path for path in template_files() if path.startswith(rooms) and path.endswith(".py")]
    assert paths
    for path in paths:
        if path.endswith("/codec.py") or "/codec/" in path:
            continue
        for node in ast.walk(ast.parse((TEMPLATE / path).read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names}
            assert roots <= {*sys.stdlib_module_names, "llmgine"}, path


def test_every_rule_that_is_left_out_says_why() -> None:
    lines = (TEMPLATE / "pyproject.toml.jinja").read_text("utf-8").splitlines()
    rules = [line for line in lines if re.match(r'  "[A-Z]+[0-9]*",', line)]
    assert rules
    assert all(" # " in line for line in rules)


def test_actions_are_pinned_by_hash() -> None:
    workflows = [*TEMPLATE.glob(".github/**/*.jinja"), *ROOT.glob(".github/**/*.yml")]
    uses = [
        line.strip()
        for path in workflows
        for line in path.read_text("utf-8").splitlines()
        if "uses:" in line
    ]
    assert uses
    assert all(re.fullmatch(r"- uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+", line) for line in uses)
