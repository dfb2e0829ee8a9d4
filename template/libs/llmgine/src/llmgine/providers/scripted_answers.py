"""What the scripted provider says when nobody gave it a script: the same to the same request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import JsonSchemaFormat, NamedTool
from llmgine.errors import InvalidRequestError

__all__ = ["Sampler", "answer", "estimated_usage"]

_DEPTH = 8
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"\"([^\"]+)\"|'([^']+)'|`([^`]+)`")
_SIMPLE: Mapping[str, JsonValue] = {"boolean": True, "null": None}

_OPERAND = r"\({0,9}-?\d+(?:\.\d+)?\){0,9}"
# A minus needs room around it: dates and telephone numbers are no sums.
_OPERATOR = r"(?:\s*(?:\*\*?|//?|[+^×÷])\s*|\s+[-−]\s+)"  # noqa: RUF001
_LOOKS: Mapping[str, re.Pattern[str]] = {
    "expression": re.compile(rf"(?<![\w.]){_OPERAND}(?:{_OPERATOR}{_OPERAND})+"),
    "path": re.compile(r"(?<![\w./-])[\w./-]*\w{2}\.[A-Za-z]\w{0,7}\b"),
    "zone": re.compile(r"\bUTC\b|\b[A-Z]\w+(?:/[A-Z]\w+)+"),
}
"""What looks like the value of a text parameter, by the parameter's name."""


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _number(value: JsonValue) -> float | None:
    return value if isinstance(value, int | float) else None


class Sampler:
    """Makes up values for a schema: numbers and quoted words of a text are used first.

    It serves to show a tool call, not to cover the whole of JSON Schema: what it doesn't know
    (patterns, conditions) it passes over.

    Args:
        schema: the schema; references into itself are followed.
        text: where the hints come from.
    """

    def __init__(self, schema: Mapping[str, object], text: str) -> None:
        plain: JsonValue = json.loads(json.dumps(schema))
        self._root = _object(plain)
        self._text = text
        self._numbers = [float(found) for found in _NUMBER.findall(text)]
        self._quoted = ["".join(groups) for groups in _QUOTED.findall(text)]
        matches = {name: look.search(text) for name, look in _LOOKS.items()}
        self._hints = {name: found[0] for name, found in matches.items() if found}

    def value(self) -> JsonValue:
        """Return a value for the whole schema."""
        return self._value(self._root, 0)

    def hinted(self) -> frozenset[str]:
        """Return the names of the properties that the text holds a value for."""
        properties = _object(self._root.get("properties"))
        return frozenset(name for name in properties if name in self._hints)

    def _value(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        if depth > _DEPTH:
            return None
        if "const" in schema:
            return schema["const"]
        if choices := _list(schema.get("enum")):
            named = [choice for choice in choices if str(choice).lower() in self._text.lower()]
            return (named or choices)[0]
        if isinstance(reference := schema.get("$ref"), str):
            return self._value(self._resolved(reference), depth + 1)
        for word in ("anyOf", "oneOf", "allOf"):
            if options := _list(schema.get(word)):
                return self._value(_object(options[0]), depth + 1)
        return self._of_kind(schema, depth)

    def _of_kind(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth)
        if kind == "array":
            least = int(_number(schema.get("minItems")) or 1)
            items = _object(schema.get("items"))
            return [self._value(items, depth + 1) for _ in range(min(least, _DEPTH))]
        if kind in {"integer", "number"}:
            return self._in_range(schema, whole=kind == "integer")
        if isinstance(kind, str) and kind in _SIMPLE:
            return _SIMPLE[kind]
        return self._string(schema)

    def _object(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        properties = _object(schema.get("properties"))
        required = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        optional = [name for name in properties if name in self._hints and name not in required]
        return {
            name: self._property(name, _object(properties.get(name)), depth)
            for name in (*required, *optional)
        }

    def _property(self, name: str, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        if name in self._hints and schema.get("type") == "string" and "enum" not in schema:
            return self._hints[name]
        return self._value(schema, depth + 1)

    def _in_range(self, schema: dict[str, JsonValue], *, whole: bool) -> JsonValue:
        value = self._numbers.pop(0) if self._numbers else 1.0
        if (most := _number(schema.get("maximum"))) is not None:
            value = min(value, most)
        if (least := _number(schema.get("minimum"))) is not None:
            value = max(value, least)
        return round(value) if whole or value == round(value) else value

    def _string(self, schema: dict[str, JsonValue]) -> JsonValue:
        value = self._quoted.pop(0) if self._quoted else self._text
        longest = _number(schema.get("maxLength"))
        value = value if longest is None else value[: int(longest)]
        return value.ljust(int(_number(schema.get("minLength")) or 0), ".")

    def _resolved(self, reference: str) -> dict[str, JsonValue]:
        found: JsonValue = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = _object(found).get(step.replace("~1", "/").replace("~0", "~"))
        return _object(found)


_ABOUT = (
    "I'm a scripted stand-in: no model, no key, no network. "
    'For real answers set `name` under `[provider]` in settings.toml, for example to "local".'
)
_REMINDER = "(scripted: no model was asked)"
_GREETINGS = frozenset({"hello", "hi", "hey", "hallo", "hola", "moin", "servus", "salut", "ciao"})
_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ECHO_LIMIT = 400
_QUESTIONS = ("What time is it?", "What is 12*34?", "Read README.md")
_OFFERED = 5
_SHORTEST_WORD = 3
_CHARACTERS_PER_TOKEN = 4


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)


def _said(message: ChatMessage) -> Iterable[str]:
    yield message.text
    yield from (call.name + call.arguments for call in message.tool_calls)
    yield from (result.text for result in message.tool_results)


def estimated_usage(request: LLMRequest, message: ChatMessage) -> Usage:
    """Return a guess at the tokens of a call: a quarter of its characters."""
    texts = [text for earlier in request.messages for text in _said(earlier)]
    texts += [json.dumps(tool) for tool in request.tools]
    return Usage(
        input_tokens=_tokens(texts),
        output_tokens=_tokens(_said(message)),
        details={"estimated": 1},
    )


def _words(text: str) -> frozenset[str]:
    spaced = _CAMEL.sub(" ", text).replace("_", " ")
    return frozenset(word.lower() for word in _WORD.findall(spaced))


def _asked_for(tools: Iterable[ToolDefinition], text: str) -> ToolDefinition | None:
    """Return the tool whose name and parameters find most in the text, if any finds anything."""
    asked = {word for word in _words(text) if len(word) >= _SHORTEST_WORD}

    def common(tool: ToolDefinition) -> int:
        function = tool["function"]
        hinted = Sampler(function["parameters"], text).hinted()
        return len(asked & _words(function["name"])) + len(hinted)

    best = max(tools, key=common, default=None)
    if best is None or (common(best) == 0 and not asked & {"tool", "tools"}):
        return None
    return best


def _chosen_tool(request: LLMRequest, text: str) -> ToolDefinition | None:
    choice = request.tool_choice
    if choice == "none":
        return None
    if isinstance(choice, NamedTool):
        for tool in request.tools:
            if tool["function"]["name"] == choice.name:
                return tool
        raise InvalidRequestError(f"tool_choice names {choice.name!r}, which is not in tools")
    best = _asked_for(request.tools, text)
    if choice != "required":
        return best
    if not request.tools:
        raise InvalidRequestError("tool_choice is `required`, but there are no tools")
    return best or request.tools[0]


def _call(request: LLMRequest, tool: ToolDefinition, text: str) -> ToolCall:
    number = 1 + sum(len(message.tool_calls) for message in request.messages)
    function = tool["function"]
    arguments = Sampler(function["parameters"], text).value()
    return ToolCall(
        id=f"scripted-call-{number}",
        name=function["name"],
        arguments=json.dumps(arguments if isinstance(arguments, dict) else {}, ensure_ascii=False),
    )


def _report(results: Iterable[ToolResult]) -> str:
    return "\n".join(
        f"The tool `{result.name}` {'failed' if result.is_error else 'answered'}: "
        f"{_shortened(result.text)}"
        for result in results
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _ECHO_LIMIT else f"{text[:_ECHO_LIMIT]}…"


def _echo(text: str) -> str:
    words = _words(text)
    if words & _GREETINGS:
        return "Hello!"
    if not text.strip():
        return "Write something, and I'll repeat it."
    return f"You said: {_shortened(text)}"


def _offer(request: LLMRequest) -> str:
    """Return questions that lead to tool calls."""
    if not request.tools or request.tool_choice == "none":
        return ""
    questions: dict[str, str] = {}
    for question in _QUESTIONS:
        if (tool := _asked_for(request.tools, question)) is not None:
            questions.setdefault(tool["function"]["name"], question)
    names = [tool["function"]["name"] for tool in request.tools[:_OFFERED]]
    offered = ", ".join(f'"{questions.get(name, f"Use {name}")}"' for name in names)
    return f" My tools are real: try {offered}."


def _words_of(request: LLMRequest, text: str) -> str:
    if request.response_format is not None:
        if isinstance(request.response_format, JsonSchemaFormat):
            made_up = Sampler(request.response_format.schema, text).value()
        else:
            made_up = {"scripted": True, "text": text}
        return json.dumps(made_up, ensure_ascii=False)
    last = request.messages[-1] if request.messages else ChatMessage.user()
    said = _report(last.tool_results) or _echo(text)
    if any(message.role == "assistant" and message.text for message in request.messages):
        return f"{said}\n\n{_REMINDER}"
    return f"{said}\n\n{_ABOUT}{_offer(request)}"


def _cut(text: str, request: LLMRequest) -> tuple[str, str | None, bool]:
    """Return what stop texts and the longest answer leave, the stop text met, and if it was cut."""
    stops = [(text.index(stop), stop) for stop in request.stop if stop and stop in text]
    if stops:
        at, met = min(stops)
        text = text[:at]
    else:
        met = None
    if request.max_output_tokens is not None:
        longest = max(0, request.max_output_tokens) * _CHARACTERS_PER_TOKEN
        if len(text) > longest:
            return text[:longest], None, True
    return text, met, False


def answer(request: LLMRequest) -> LLMResponse:
    """Return the answer to a request.

    It greets, repeats what was said, calls a tool whose name the user mentions, reports what
    tools answered, and makes up JSON where a format is asked for.

    Raises:
        InvalidRequestError: the request's `tool_choice` can't be met.
    """
    asked = next(
        (message for message in reversed(request.messages) if message.role == "user"), None
    )
    text = "" if asked is None else asked.text
    number = 1 + sum(message.role == "assistant" for message in request.messages)
    answered = bool(request.messages and request.messages[-1].tool_results)
    tool = None if answered else _chosen_tool(request, text)
    if tool is not None:
        message = ChatMessage.assistant(_call(request, tool, text))
        stop, cut = None, False
    else:
        said, stop, cut = _cut(_words_of(request, text), request)
        message = ChatMessage.assistant(said)
    return LLMResponse(
        id=f"scripted-{number}",
        model=request.model or "scripted",
        message=message,
        finish_reason="tool_calls" if tool else "length" if cut else "stop",
        stop_sequence=stop,
        usage=estimated_usage(request, message),
    )
