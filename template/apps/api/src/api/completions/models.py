"""What the endpoint answers, for the documentation and for the list of models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

__all__ = ["Completion", "Model", "ModelList"]


class CalledFunction(BaseModel):
    """A function's name, and its arguments as a JSON text."""

    name: str
    arguments: str


class CallOfTool(BaseModel):
    """A call of one of the request's tools."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CompletionMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallOfTool] = []


class Choice(BaseModel):
    """The one answer, and why it ended."""

    index: Literal[0]
    message: CompletionMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class Tokens(BaseModel):
    """What the answer took, all model calls together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None


class Completion(BaseModel):
    """An answer. With `stream` it comes as server-sent events, the last of them `[DONE]`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Tokens | None
    system_fingerprint: str | None


class Model(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(BaseModel):
    """The models that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]
