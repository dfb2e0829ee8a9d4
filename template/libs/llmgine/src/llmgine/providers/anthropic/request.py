"""A request as the body of Anthropic's `POST /v1/messages`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, LLMRequest, Reasoning
from llmgine.errors import InvalidRequestError
from llmgine.providers.anthropic.history import Conversation
from llmgine.providers.anthropic.parts import Block
from llmgine.providers.anthropic.tools import tools_of

__all__ = ["Call", "Writer"]

# What the SDK sends as headers, under the SDK's names.
_HEADERS: Mapping[str, str] = {
    "betas": "anthropic-beta",
    "user_profile_id": "anthropic-user-profile-id",
    "workspace_id": "anthropic-workspace-id",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What goes over the wire.

    Attributes:
        body: the JSON object.
        headers: those of this call alone.
        left_out: what of a foreign history had to stay behind, in words.
    """

    body: Block
    headers: dict[str, str]
    left_out: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """Writes requests down.

    Attributes:
        model: for requests that name none.
        max_tokens: for requests that name no longest answer, since Anthropic demands one.
        sampling: whether `temperature`, `top_p` and `top_k` are taken.
        refusal: makes the error for what Anthropic can't do.
    """

    model: str
    max_tokens: int
    sampling: bool
    refusal: Callable[[str], InvalidRequestError]

    def written(self, request: LLMRequest) -> Call:
        """Return what to send.

        Raises:
            InvalidRequestError: it asks for what Anthropic can't do; nothing is dropped silently.
        """
        self._refuse(request)
        conversation = Conversation(self.refusal)
        for message in request.messages:
            conversation.add(message)
        conversation.close()
        if not conversation.turns:
            raise self.refusal("messages: there is nothing to answer in them")
        options = dict(request.provider_options)
        headers = dict(_headers(options))
        body = {
            "model": request.model or self.model,
            "max_tokens": self._longest(request),
            "messages": conversation.turns,
            **_given({"system": conversation.system or None}),
            **tools_of(request, options.pop("tools", None), self.refusal),
            **_settings(request),
            **_output(request),
        }
        if clash := sorted({*body, "stream"} & options.keys()):
            raise self.refusal(f"provider_options: {clash[0]!r} belongs to the request itself")
        return Call(
            body={**options, **body},
            headers=headers,
            left_out=frozenset(conversation.left_out),
        )

    def _refuse(self, request: LLMRequest) -> None:
        sampled = any(
            each is not None for each in (request.temperature, request.top_p, request.top_k)
        )
        reasons = {
            "seed: answers can't be repeated": request.seed is not None,
            "presence_penalty: there is no such thing": bool(request.presence_penalty),
            "frequency_penalty: there is no such thing": bool(request.frequency_penalty),
            "metadata: labels aren't kept, only a user_id is": bool(request.metadata),
            "response_format: a JSON object needs a schema; give a JsonSchemaFormat": isinstance(
                request.response_format, JsonObjectFormat
            ),
            "temperature, top_p and top_k: not taken since version 2026-10-21 of the API; "
            'provider.options.api_version = "2023-06-01" has them for older models': sampled
            and not self.sampling,
        }
        for reason, given in reasons.items():
            if given:
                raise self.refusal(reason)

    def _longest(self, request: LLMRequest) -> int:
        if request.max_output_tokens is not None:
            return request.max_output_tokens
        # Anthropic counts the thoughts in: the default is for what comes after them.
        thoughts = request.reasoning.budget_tokens if request.reasoning else None
        return self.max_tokens + (thoughts or 0)


def _given(fields: Block) -> Block:
    return {name: value for name, value in fields.items() if value is not None}


def _headers(options: dict[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Take out of the options what goes into headers."""
    for name, header in _HEADERS.items():
        if name in options:
            value = options.pop(name)
            yield header, ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _settings(request: LLMRequest) -> Block:
    return _given(
        {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": list(request.stop) or None,
            "metadata": None if request.user_id is None else {"user_id": request.user_id},
        }
    )


def _output(request: LLMRequest) -> Block:
    """Return the form of the answer, and how much thought goes before it."""
    config: Block = {}
    if isinstance(request.response_format, JsonSchemaFormat):
        config["format"] = {"type": "json_schema", "schema": request.response_format.schema}
    wanted = request.reasoning or Reasoning()
    if wanted.effort not in {None, "none"}:
        config["effort"] = wanted.effort
    thinking = None if wanted == Reasoning() else _thinking(wanted)
    return _given({"thinking": thinking, "output_config": config or None})


def _thinking(wanted: Reasoning) -> Block:
    if wanted.effort == "none":
        return {"type": "disabled"}
    thinking: Block = {"type": "adaptive"}
    if wanted.budget_tokens is not None:
        thinking = {"type": "enabled", "budget_tokens": wanted.budget_tokens}
    if wanted.summary is not None:
        thinking["display"] = "summarized" if wanted.summary == "auto" else wanted.summary
    return thinking
