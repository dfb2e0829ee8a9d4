"""Options and keys of an adapter: `provider.options`, and the variables that its SDK goes by."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from llmgine.errors import ConfigurationError
from llmgine.settings import ProviderSettings

__all__ = [
    "checked_options",
    "flag_of",
    "is_local",
    "key_of",
    "missing_key",
    "seconds_of",
    "url_of",
    "usable_key",
    "value_of",
]

_FLAGS = {"true": True, "false": False}


def checked_options(settings: ProviderSettings, known: Iterable[str]) -> None:
    """Refuse options that the provider doesn't know.

    Raises:
        ConfigurationError: there is one.
    """
    known = sorted(known)
    if unknown := sorted(settings.options.keys() - set(known)):
        listed = ", ".join(f"`{name}`" for name in known)
        raise ConfigurationError(
            f"provider.options.{unknown[0]}: no such option of {settings.name!r}; it knows {listed}"
        )


def _given(settings: ProviderSettings, option: str, variable: str) -> tuple[str, str]:
    """Return a value and where it stands: the option, the environment, or the project's `.env`."""
    places = (
        (f"provider.options.{option}", settings.options.get(option)),
        (variable, os.environ.get(variable)),
        (f"{variable} in .env", settings.variables.get(variable)),
    )
    for place, value in places:
        if value is not None and value.strip():
            return place, value.strip()
    return "", ""


def key_of(settings: ProviderSettings, variable: str, *, option: str = "api_key") -> str | None:
    """Return the key: the option, else the variable in the environment, else that in `.env`.

    Raises:
        ConfigurationError: it can't be a key; the text doesn't show it.
    """
    place, key = _given(settings, option, variable)
    return usable_key(key, place) or None


def usable_key(key: str, place: str) -> str:
    """Return a key without the end of a line that a file may have put behind it.

    Raises:
        ConfigurationError: it can't be a key; the text doesn't show it.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError(
            f"{place}: expected a key of printable ASCII without spaces, found other characters"
        )
    return key


def value_of(settings: ProviderSettings, variable: str, *, option: str) -> str | None:
    """Return a value that is read as `key_of` reads keys."""
    return _given(settings, option, variable)[1] or None


def missing_key(settings: ProviderSettings, variable: str) -> ConfigurationError:
    """Return the error for a key that stands nowhere."""
    return ConfigurationError(
        f"provider.name: {settings.name!r} needs a key: set {variable} in the environment, "
        "or in .env beside settings.toml"
    )


def url_of(settings: ProviderSettings, variable: str, *, option: str = "base_url") -> str | None:
    """Return where the server is, if that is said: read as `key_of` reads keys.

    Raises:
        ConfigurationError: it is no address.
    """
    place, url = _given(settings, option, variable)
    if url and not _is_address(url):
        # Not shown: there may be a password in it.
        raise ConfigurationError(f"{place}: expected http://host:port/v1 or https://...")
    return url or None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_local(url: str) -> bool:
    """Tell whether an address is of this machine or a private network, where keys are unusual."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))


def seconds_of(settings: ProviderSettings, option: str, default: float) -> float:
    """Return an option that is a number of seconds above zero.

    Raises:
        ConfigurationError: it isn't one.
    """
    given = settings.options.get(option, str(default))
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"provider.options.{option}: expected seconds, found {given!r}")
    return seconds


def flag_of(settings: ProviderSettings, option: str, *, default: bool) -> bool:
    """Return an option that is a switch.

    Raises:
        ConfigurationError: it is neither `true` nor `false`.
    """
    given = settings.options.get(option, str(default)).lower()
    if given not in _FLAGS:
        raise ConfigurationError(
            f"provider.options.{option}: expected true or false, found {given!r}"
        )
    return _FLAGS[given]
