"""Redaction: secrets go, by name and by shape; counts and ordinary words stay."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.observability.redaction import (
    REDACTED,
    hidden,
    is_secret_key,
    may_hold_secret,
    redact_text,
)

SECRETS = [
    "sk-proj-Ab3dEf6hIj9kLmNoPqRs",
    "sk-ant-REDACTED",
    "sk" + "_live_4eC39HqLyjWDarjtT1zdp7dc",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "glpat-ABCdefGHIjklMNOpqrST",
    "xoxb-123456789012-abcdefghijkl",
    "xapp-1-A012B34C-567-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "ya29.a0AfH6SMBx1234567890",
    "SG.abcdefghijklmnop.qrstuvwxyz0123456789",
    "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "pypi-AgEIcHlwaS5vcmcCJDAwMDAwMDAw",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDe.abcdefghijklmnopqrstuvwxyz0123456789AB",
]
NAMED = [
    "password=hunter2!",
    "password: hunter2!",
    "PASSWORD = 'hunter2! with more'",
    '"password": "hunter2!"',
    '{"login": {"passwd":"hunter2!"}}',
    '{\\"password\\": \\"hunter2!\\"}',
    "Login(user='a', password='hunter2!')",
    "db_password=hunter2!;timeout=3",
    "client_secret=hunter2!&grant=x",
    "?access_token=hunter2!&x=1",
    "api-key: hunter2!",
    "X-Api-Key: hunter2!",
    "openaiApiKey=hunter2!",
    "Authorization: Digest hunter2!",
    "authorization: bearer hunter2!x",
    "'Authorization': 'Bearer hunter2!'",
    "Cookie: a=1; session=hunter2!; b=2",
    "Set-Cookie: session=hunter2!",
    "Bearer hunter2hunter2",
    "Basic aHVudGVyMjpodW50ZXIy",
    "postgres://app:hunter2!@db.example/app",
    "https://hunter2hunter2hunter2hunter2@example.com/x",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2\nhunter2\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2 and the rest is cut",
]
HARMLESS = [
    "",
    "hello world",
    "input_tokens=812 output_tokens=164",
    "total_tokens: 12, max_tokens: 5",
    '{"input_tokens": 5, "completion_tokens": 7}',
    "a desk-top risk-assessment for task-force",
    "basic information about bearers",
    "https://example.com/path?page=2",
    "https://user@example.com",
    "Asia, AIDS and eyewitness",
    "token limit reached",
    "password=None",
    "the secret is out",
    "x" * 10_000,
]


@pytest.mark.parametrize("secret", SECRETS)
def test_shapes_are_known_wherever_they_stand(secret: str) -> None:
    for text in (secret, f"key {secret}.", f"'{secret}'", f"(\n{secret}\n)", f"k={secret}&x=1"):
        assert may_hold_secret(text)
        redacted = redact_text(text)
        assert secret not in redacted
        assert REDACTED in redacted
        for part in secret.split("."):
            assert len(part) < 8 or part not in redacted


@pytest.mark.parametrize("text", NAMED)
def test_values_behind_a_secrets_name_are_hidden(text: str) -> None:
    redacted = redact_text(f"before {text} after")
    assert "hunter2" not in redacted
    assert "aHVudGVyMjpodW50ZXIy" not in redacted
    assert redacted.startswith("before ")


@pytest.mark.parametrize("text", HARMLESS)
def test_the_rest_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "db_password", "dbPassword", "user.password", "passwd", "pwd",
        "secret", "client_secret", "clientSecret", "SECRET_KEY", "secrets", "token", "access_token",
        "accessToken", "auth-token", "bot_token", "api_key", "apiKey", "APIKey", "api-keys",
        "X-Api-Key", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "private_key", "authorization",
        "Proxy-Authorization", "cookie", "Set-Cookie", "cookies", "credentials", "passphrase",
        "jwt", "otp", "DB_PASS", "auth", "userpassword", "password_hash",
    ],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret_key(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "input_tokens", "output_tokens", "max_tokens", "tokens", "token_count", "tokenizer",
        "session_id", "key", "keys", "author", "authority", "passed", "passenger", "secretary",
        "name", "id", "monkey", "hotkey", "gen_ai.token.type", "compass", "cook",
    ],
)  # fmt: skip
def test_other_names(name: str) -> None:
    assert not is_secret_key(name)


def test_what_stands_for_a_secret() -> None:
    assert hidden("x") == hidden(5) == hidden(["x"]) == REDACTED
    assert hidden(None) is None
    assert hidden(value=True) is True
    assert hidden(0.5) == 0.5


@given(
    st.sampled_from(SECRETS),
    st.text(max_size=50).filter(lambda text: not text[-1:].isalnum()),
    st.text(max_size=50).filter(lambda text: not text[:1].isalnum() and text[:1] not in "_-."),
)
def test_no_shape_gets_through(secret: str, before: str, after: str) -> None:
    assert secret not in redact_text(f"{before}{secret}{after}")


@given(st.text() | st.sampled_from([*SECRETS, *NAMED]))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "password" * 20_000,
        "password=" * 20_000,
        "sk-" * 60_000,
        "://" * 60_000,
        "eyJ" * 60_000,
        "-----BEGIN PRIVATE KEY-----" * 6_000,
        "Bearer " * 30_000,
        "a" * 200_000 + "=:",
        "\\" * 100_000 + '"token":"',
        'token="' + "\\" * 100_000,
        "x_" * 100_000 + "password=1",
    ],
    ids=lambda text: str(text)[:12],
)
def test_time_grows_no_faster_than_the_text(text: str) -> None:
    began = time.thread_time()
    redact_text(text)
    assert time.thread_time() - began < 2
