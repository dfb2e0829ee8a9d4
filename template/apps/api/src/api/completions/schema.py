"""Requests in OpenAI's shape: every field that is taken, and what is taken for it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

__all__ = [
    "AssistantMessage",
    "AudioPart",
    "CompletionRequest",
    "FilePart",
    "FunctionTool",
    "ImagePart",
    "JsonObjectForm",
    "JsonSchemaForm",
    "Message",
    "NamedChoice",
    "RefusalContent",
    "SystemMessage",
    "TextContent",
    "TextForm",
    "ToolMessage",
    "UserMessage",
    "UserPart",
]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Hint: TypeAlias = dict[str, JsonValue] | None


class TextContent(_Shape):
    """A piece of text."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Hint = None


class ImageUrl(_Shape):
    """Where a picture is, or the picture itself as a data URL."""

    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ImagePart(_Shape):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Hint = None


class InputAudio(_Shape):
    """Sound in base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(_Shape):
    """A piece of sound."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    prompt_cache_breakpoint: Hint = None


class File(_Shape):
    """A document as a data URL, or the provider's id of one."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(_Shape):
    """A document."""

    type: Literal["file"]
    file: File
    prompt_cache_breakpoint: Hint = None


class RefusalContent(_Shape):
    """Why the model didn't answer."""

    type: Literal["refusal"]
    refusal: str


UserPart: TypeAlias = TextContent | ImagePart | AudioPart | FilePart


def _form(value: object) -> str | None:
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


_EITHER = Discriminator(
    _form,
    custom_error_type="content",
    custom_error_message="Input should be a text or a list of parts",
)
_OF_SDK = "Not read: OpenAI's SDK adds it."
_BY_TYPE = Field(discriminator="type")
_SOME = Field(min_length=1)
_LIST = Field(min_length=1, fail_fast=True)
_Text: TypeAlias = Annotated[str, Tag("text")]
_Texts: TypeAlias = Annotated[list[TextContent], _LIST, Tag("parts")]
_UserParts: TypeAlias = Annotated[list[Annotated[UserPart, _BY_TYPE]], _LIST, Tag("parts")]
_Said: TypeAlias = Annotated[
    list[Annotated[TextContent | RefusalContent, _BY_TYPE]], _LIST, Tag("parts")
]


class SystemMessage(_Shape):
    """Instructions. The settings' own stand first where a request brings none."""

    role: Literal["system", "developer"]
    content: Annotated[_Text | _Texts, _EITHER]
    name: str | None = None


class UserMessage(_Shape):
    """What the user says and shows."""

    role: Literal["user"]
    content: Annotated[_Text | _UserParts, _EITHER]
    name: str | None = None


class CalledFunction(_Shape):
    """A function's name, and its arguments as a JSON text."""

    name: Annotated[str, _SOME]
    arguments: str
    parsed_arguments: JsonValue = Field(default=None, description=_OF_SDK)


class CallOfTool(_Shape):
    """A call that the model made."""

    id: Annotated[str, _SOME]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(default=None, description="Not read: streams say it.")


class AssistantMessage(_Shape):
    """What the model said, as it came in an answer."""

    role: Literal["assistant"]
    content: Annotated[_Text | _Said, _EITHER] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = Field(
        default=None, description="The model's reasoning, as some servers send it."
    )
    tool_calls: Annotated[list[CallOfTool], _LIST] | None = None
    annotations: list[JsonValue] | None = Field(default=None, description="Not read.")
    parsed: JsonValue = Field(default=None, description=_OF_SDK)
    audio: None = Field(default=None, description="Refused: answers are text.")
    function_call: None = Field(default=None, description="Refused: use `tool_calls`.")


class ToolMessage(_Shape):
    """What came of a tool call."""

    role: Literal["tool"]
    content: Annotated[_Text | _Texts, _EITHER]
    tool_call_id: str


Message: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(_Shape):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class FunctionTool(_Shape):
    """A tool of the caller's: calls of it are the answer."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Shape):
    """A function's name."""

    name: str


class NamedChoice(_Shape):
    """The model must call this function."""

    type: Literal["function"]
    function: NamedFunction


class TextForm(_Shape):
    """The answer is text."""

    type: Literal["text"]


class JsonObjectForm(_Shape):
    """The answer is a JSON object."""

    type: Literal["json_object"]


class Schema(_Shape):
    """A JSON Schema and its name."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaForm(_Shape):
    """The answer is JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: Schema


class StreamOptions(_Shape):
    """What a stream tells beside the answer."""

    include_usage: bool | None = Field(default=None, description="Tokens, in a last chunk.")
    include_obfuscation: bool | None = Field(default=None, description="Not read.")


def _choice_form(value: object) -> str:
    return "word" if isinstance(value, str) else "function"


_Choice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[NamedChoice, Tag("function")],
    Discriminator(_choice_form),
]
_Word: TypeAlias = Annotated[str, _SOME]
_Stop: TypeAlias = Annotated[
    Annotated[_Word, Tag("text")] | Annotated[list[_Word], _LIST, Tag("parts")],
    Discriminator(
        _form,
        custom_error_type="stop",
        custom_error_message="Input should be a text or a list of texts",
    ),
]


_UNTOLD = "Refused: probabilities aren't told."


class CompletionRequest(_Shape):
    """A request for an answer, in the shape of OpenAI's chat completions.

    What changes an answer is done as asked or refused; labels are taken and not read. Without
    `tools` the server's own tools are offered to the model and run here, but for those that need
    a person's approval.
    """

    messages: Annotated[list[Message], _LIST] = Field(
        description="The conversation so far. The server keeps none."
    )
    model: str = Field(description="One of those at `/v1/models`.")
    stream: bool | None = Field(default=None, description="Whether to send the answer in pieces.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with `stream`.")
    tools: Annotated[list[FunctionTool], _LIST] | None = Field(
        default=None, description="The caller's tools, instead of the server's own."
    )
    tool_choice: _Choice | None = Field(
        default=None, description="Without `tools`: `none` keeps the server's own from the model."
    )
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**63)
    max_tokens: int | None = Field(
        default=None, ge=1, lt=2**63, description="As `max_completion_tokens`."
    )
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop: _Stop | None = Field(default=None, description="Texts that end the answer.")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    response_format: (
        Annotated[TextForm | JsonObjectForm | JsonSchemaForm, Field(discriminator="type")] | None
    ) = None

    user: str | None = Field(default=None, description="An opaque id, handed to the provider.")
    safety_identifier: str | None = Field(default=None, description="As `user`.")
    metadata: dict[str, str] | None = Field(default=None, description="Not read.")
    store: bool | None = Field(default=None, description="Not read: nothing is stored.")
    prompt_cache_key: str | None = Field(default=None, description="Not read.")
    prompt_cache_options: Hint = Field(default=None, description="Not read.")
    prompt_cache_retention: Literal["in_memory", "24h"] | None = Field(
        default=None, description="Not read."
    )

    n: int | None = Field(default=None, ge=1, le=1, description="Refused above 1.")
    service_tier: Literal["auto", "default"] | None = Field(
        default=None, description="Refused: the provider's settings say it."
    )
    modalities: list[Literal["text"]] | None = Field(
        default=None, description="Refused: answers are text."
    )
    verbosity: Literal["medium"] | None = Field(
        default=None, description="Refused: not every provider knows it."
    )
    logprobs: Literal[False] | None = Field(default=None, description=_UNTOLD)
    top_logprobs: Literal[0] | None = Field(default=None, description=_UNTOLD)
    logit_bias: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = Field(
        default=None, description="Refused: tokens differ from model to model."
    )
    audio: None = Field(default=None, description="Refused: answers are text.")
    prediction: None = Field(default=None, description="Refused: not every provider knows it.")
    moderation: None = Field(default=None, description="Refused: nothing is moderated here.")
    web_search_options: None = Field(
        default=None, description="Refused: a tool of the server's may search."
    )
    functions: None = Field(default=None, description="Refused: use `tools`.")
    function_call: None = Field(default=None, description="Refused: use `tool_choice`.")
