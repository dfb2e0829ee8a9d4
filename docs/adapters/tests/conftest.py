import pytest

pytest_plugins = ["llmgine.testing.fixtures"]
pytest.register_assert_rewrite("suite")
