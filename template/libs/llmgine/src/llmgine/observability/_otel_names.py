"""The names that OpenTelemetry's conventions give to what we tell, in one place.

The conventions for messaging and generative AI are still in development: when a name changes, it
changes here. Those for generative AI are of their last published generation, 1.41.
"""

from __future__ import annotations

from typing import Final

__all__: list[str] = []  # by module: `names.ERROR_TYPE`

SCOPE: Final = "llmgine"

# Any kind of span
ERROR_TYPE: Final = "error.type"
EXCEPTION: Final = "exception"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_TYPE: Final = "exception.type"

# The bus
MESSAGING_CONVERSATION: Final = "messaging.message.conversation_id"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_MESSAGE: Final = "messaging.message.id"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_SYSTEM: Final = "messaging.system"
PROCESS: Final = "process"

# Models and tools
CHAT: Final = "chat"
CONVERSATION: Final = "gen_ai.conversation.id"
EXECUTE_TOOL: Final = "execute_tool"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
OPERATION: Final = "gen_ai.operation.name"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - tokens of text
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_CALL: Final = "gen_ai.tool.call.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOP_P: Final = "gen_ai.request.top_p"

# Our own: nothing that the conventions have a name for, and no word that scrubbers take out.
ABANDONED: Final = "llmgine.abandoned"
CANCELLED: Final = "llmgine.cancelled"
PREFIX: Final = "llmgine."

# Metrics
CLIENT_DURATION: Final = "gen_ai.client.operation.duration"
CLIENT_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
CLIENT_TOKENS: Final = "gen_ai.client.token.usage"
PROCESS_DURATION: Final = "messaging.process.duration"
TOOL_DURATION: Final = "gen_ai.execute_tool.duration"

CAPTURE_CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SECONDS: Final = tuple(0.01 * 2**step for step in range(14))
TOKENS: Final = tuple(4**step for step in range(14))
