"""The application's provider as a model of pydantic-ai."""

from collections.abc import Iterator

from llmgine import contracts as llm
from llmgine.contracts.codec import decode, encode
from pydantic_ai import RequestUsage, ToolDefinition, UserError
from pydantic_ai import messages as ai
from pydantic_ai.models.function import AgentInfo, FunctionModel


def as_model(provider: llm.LLMProvider) -> FunctionModel:
    async def answer(history: list[ai.ModelMessage], info: AgentInfo) -> ai.ModelResponse:
        if info.model_settings or info.model_request_parameters.native_tools:
            raise UserError("expected settings and native tools on the provider, not on the agent")
        said = [llm.ChatMessage.system(info.instructions)] if info.instructions else []
        said += [each for message in history for each in _said(message)]
        tools = [_described(tool) for tool in (*info.function_tools, *info.output_tools)]
        choice = None if info.allow_text_output else "required"
        request = llm.LLMRequest(messages=tuple(said), tools=tuple(tools), tool_choice=choice)
        async with llm.closing(provider.stream(request)) as chunks:
            response = await llm.fold_stream(chunks)
        text = [ai.TextPart(response.text)] if response.text else []
        calls = [ai.ToolCallPart(c.name, c.arguments, c.id) for c in response.tool_calls]
        read, written = response.usage.input_tokens or 0, response.usage.output_tokens or 0
        return ai.ModelResponse(
            parts=[*text, *calls],
            usage=RequestUsage(input_tokens=read, output_tokens=written),
            finish_reason="length" if response.finish_reason == "length" else None,
            provider_details={"llmgine": encode(response.message).decode()},
        )

    return FunctionModel(answer, model_name=provider.name)


def _said(message: ai.ModelMessage) -> Iterator[llm.ChatMessage]:
    for each in [message] if isinstance(message, ai.ModelResponse) else message.parts:
        match each:
            case ai.ModelResponse(provider_details={"llmgine": str(text)}):
                yield decode(text.encode(), llm.ChatMessage)  # back as it came
            case ai.SystemPromptPart(content=text):
                yield llm.ChatMessage.system(text)
            case ai.UserPromptPart(content=str(text)):
                yield llm.ChatMessage.user(text)
            case ai.ToolReturnPart(tool_name=name, tool_call_id=call):
                text, wrong = each.model_response_str(), each.outcome in {"failed", "retried"}
                result = llm.ToolResult(tool_call_id=call, name=name, content=text, is_error=wrong)
                yield llm.ChatMessage.tool(result)
            case _:
                raise UserError(f"expected text and tool calls, found {each!r}")


def _described(tool: ToolDefinition) -> llm.ToolDefinition:
    description, parameters = tool.description or "", tool.parameters_json_schema
    return {
        "type": "function",
        "function": {"name": tool.name, "description": description, "parameters": parameters},
    }
