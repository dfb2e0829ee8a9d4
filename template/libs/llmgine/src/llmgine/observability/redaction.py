"""Taking secrets out of what is written down: by the name they go under, and by their shape.

It is on in every handler and has no switch. Names and texts that look harmless cost next to
nothing: a name is judged once, and a text is looked at closely only if a first, cheap search
finds something in it that secrets begin with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from llmgine.contracts.chat import JsonValue

__all__ = [
    "REDACTED",
    "hidden",
    "is_secret_key",
    "is_secret_pair",
    "may_hold_secret",
    "redact_text",
]

REDACTED = "[redacted]"
"""What stands where a secret stood."""

_PAIR = 2
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_SECRET_WORDS = frozenset({
    "apikey", "apikeys", "authorization", "bearer", "cookie", "cookies", "credential",
    "credentials", "jwt", "passphrase", "passwd", "password", "passwords", "pwd", "secret",
    "secrets",
})  # fmt: skip
_SECRET_PAIRS = frozenset({
    ("access", "key"), ("account", "key"), ("api", "key"), ("api", "keys"), ("auth", "key"),
    ("encryption", "key"), ("master", "key"), ("private", "key"), ("shared", "key"),
    ("signing", "key"), ("token", "header"), ("token", "value"),
})  # fmt: skip
_SECRET_ENDINGS = ("apikey", "passphrase", "passwd", "password", "secret", "token")
_SECRET_LAST = frozenset({"auth", "otp", "pass"})


@lru_cache(maxsize=4096)
def is_secret_key(name: str) -> bool:
    """Tell whether a value under this name is a secret, however the name is spelled.

    `api_key`, `X-Api-Key` and `openaiApiKey` are; `input_tokens`, a count, isn't.
    """
    words = _NOT_WORD.sub(" ", _CAMEL.sub(" ", name[:256]).lower()).split() or [""]
    return (
        words[-1].endswith(_SECRET_ENDINGS)
        or words[-1] in _SECRET_LAST
        or not _SECRET_WORDS.isdisjoint(words)
        or not _SECRET_PAIRS.isdisjoint(pairwise(words))
    )


def hidden(value: object) -> JsonValue:
    """Return what is written for a value under a secret's name."""
    return value if value is None or isinstance(value, bool | float) else REDACTED


def is_secret_pair(items: Sequence[object]) -> bool:
    """Tell whether these are a name and its secret, as headers are often given."""
    return len(items) == _PAIR and type(items[0]) is str and is_secret_key(items[0])


# What secrets begin with, each beside one character of it. Looking for a single character costs
# next to nothing, and most texts have few of these.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("-", ("k-", "xox", "pat-", "app-", "pypi-", "--BEGIN")),
    ("_", ("k_", "gh", "_pat_", "npm_", "hf_")),
    ("A", ("AKIA", "ASIA", "AIza")),
    ("J", ("eyJ",)),
    (".", ("ya29.", "SG.", "MT")),
    ("B", ("Bearer", "BEARER", "Basic")),
    ("b", ("bearer", "basic")),
)
_NAMES = (
    "passw", "passphrase", "pwd", "secret", "token", "apikey", "api-key", "api_key", "api key",
    "accesskey", "access-key", "access_key", "privatekey", "private-key", "private_key",
    "authorization", "cookie", "credential", "://",
)  # fmt: skip

# Case matters in these, and each begins with fixed letters: that is what keeps them cheap.
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|rk|pk)[-_][A-Za-z0-9_-]{8,}"
    r"|gh[pousr]_[A-Za-z0-9]{8,}"
    r"|github_pat_[A-Za-z0-9_]{8,}"
    r"|glpat-[A-Za-z0-9_-]{8,}"
    r"|xox[a-z]-[A-Za-z0-9-]{8,}"
    r"|xapp-[A-Za-z0-9-]{8,}"
    r"|A(?:KIA|SIA)[A-Z0-9]{12,}"
    r"|AIza[A-Za-z0-9_-]{20,}"
    r"|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,4}"
    r"|ya29\.[A-Za-z0-9_-]{8,}"
    r"|SG\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)?"
    r"|npm_[A-Za-z0-9]{20,}"
    r"|pypi-[A-Za-z0-9_-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}"
    r"|MT[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{20,}"
    r")"
)
_SCHEMES = re.compile(
    r"\b(Bearer|BEARER|(?:bearer|[Bb]asic)(?=\s+[a-z._~+/-]*[A-Z0-9=]))(\s{1,8})"
    r"[A-Za-z0-9._~+/=-]{8,}"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)"
)
_USER_INFO = re.compile(r"(?<=://)[^\s/\"'<>]{1,512}@")

# A name with a value behind it: `password=...`, `"api_key": "..."`, `Cookie: ...`.
_NAMED = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[-_ ]?key|access[-_]?key|private[-_]?key"
    r"|authorization|cookie|credential)[A-Za-z0-9_-]{0,32}[\"'\\]{0,4}\s{0,8}(?:=>|[:=])\s{0,8}",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,96}$")
_NAME_TAIL = re.compile(r"[\"'\\]{0,4}\s*(?:=>|[:=])\s*$")
_WHOLE_LINE = re.compile(r"authorization|cookie", re.IGNORECASE)
_VALUE = re.compile(
    r"\\+\"(?:[^\"\\]|\\(?!\"))*\\+\"|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
    r"|[^\s,;&\"'}\])]+",
    re.DOTALL,
)
_LINE_VALUE = re.compile(
    r"\\+\"(?:[^\"\\]|\\(?!\"))*\\+\"|\"[^\"\r\n]*\"?|'[^'\r\n]*'?|[^\r\n\"']+"
)
# The last one since a value without quotes ends before a bracket.
_HARMLESS = frozenset({"none", "null", "true", "false", "str", REDACTED, REDACTED[:-1]})
_LONGEST_USER = 20


def may_hold_secret(text: str) -> bool:
    """Tell, cheaply, whether a closer look with `redact_text` is called for."""
    for sign, beginnings in _SIGNS:
        if sign in text:
            for beginning in beginnings:
                if beginning in text:
                    return True
    # A secret under its name has one of these between the two.
    if "=" not in text and ":" not in text:
        return False
    text = text.lower()
    return any(name in text for name in _NAMES)


def redact_text(text: str) -> str:
    """Return the text without the secrets in it that can be known by shape or by name."""
    if not may_hold_secret(text):
        return text
    text = _PEM.sub(REDACTED, text)
    text = _SCHEMES.sub(rf"\1\2{REDACTED}", text)
    text = _SHAPES.sub(REDACTED, text)
    text = _USER_INFO.sub(_without_password, text)
    return _without_named(text)


def _without_password(found: re.Match[str]) -> str:
    user, colon, _ = found[0].partition(":")
    if colon:
        return f"{user}:{REDACTED}@"
    return f"{REDACTED}@" if len(user) > _LONGEST_USER else found[0]


def _without_named(text: str) -> str:
    pieces: list[str] = []
    done = 0
    for found in _NAMED.finditer(text):
        value = None if found.start() < done else _secret_behind(text, found)
        if value is not None:
            pieces += (text[done : found.end()], _quoted_like(value[0]))
            done = value.end()
    return "".join((*pieces, text[done:]))


def _secret_behind(text: str, found: re.Match[str]) -> re.Match[str] | None:
    name = _name_around(text, found)
    if not is_secret_key(name):
        return None
    pattern = _LINE_VALUE if _WHOLE_LINE.search(name) else _VALUE
    value = pattern.match(text, found.end())
    return None if value is None or _bare(value[0]).lower() in _HARMLESS else value


def _name_around(text: str, found: re.Match[str]) -> str:
    # The pattern begins at the telling word; what stands before it decides as well.
    before = _NAME.search(text, max(0, found.start() - 96), found.start())
    tail = _NAME_TAIL.sub("", found[0])
    return f"{before[0] if before else ''}{tail}"


def _bare(value: str) -> str:
    return value.strip("\\\"' \t")


def _quoted_like(value: str) -> str:
    opening = value[: len(value) - len(value.lstrip("\\\"'"))]
    return f"{opening}{REDACTED}{opening}"
