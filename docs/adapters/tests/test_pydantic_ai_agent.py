import pytest
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import ChatMessage, LLMResponse, ToolCall, ToolResult, Usage
from llmgine.providers import ScriptedProvider
from pydantic_ai import Agent, ImageUrl, UserError
from suite import AgentSuite

from pydantic_ai_agent import Ask, register
from pydantic_ai_model import as_model


class TestPydanticAiAgent(AgentSuite):
    def register(self, app: ApplicationBootstrap) -> None:
        register(app)

    def ask(self, question: str) -> Ask:
        return Ask(question=question)


class TestModel:
    """What the agent above doesn't need of the model, and others do."""

    async def test_an_output_type_is_asked_for_as_a_tool(self) -> None:
        call = ToolCall(id="1", name="final_result", arguments='{"response": 20}')
        provider = ScriptedProvider([ChatMessage.assistant(call)])
        agent = Agent(as_model(provider), output_type=int, instructions="Count.")
        assert (await agent.run("How many?")).output == 20
        request = provider.requests[0]
        assert request.tool_choice == "required"
        assert [each["function"]["name"] for each in request.tools] == ["final_result"]
        assert request.messages == (ChatMessage.system("Count."), ChatMessage.user("How many?"))

    async def test_the_tokens_are_the_providers(self) -> None:
        answer = LLMResponse(
            message=ChatMessage.assistant("Hi."), usage=Usage(input_tokens=70, output_tokens=7)
        )
        usage = (await Agent(as_model(ScriptedProvider([answer]))).run("Hello!")).usage
        assert (usage.input_tokens, usage.output_tokens) == (70, 7)

    async def test_a_conversation_goes_on(self) -> None:
        provider = ScriptedProvider(["One.", "Two."])
        agent = Agent(as_model(provider), system_prompt="Count.")
        first = await agent.run("Begin.")
        await agent.run("Go on.", message_history=first.all_messages())
        assert [each.text for each in provider.requests[1].messages] == [
            "Count.",
            "Begin.",
            "One.",
            "Go on.",
        ]

    async def test_what_the_model_does_wrong_is_told_to_it(self) -> None:
        wrong = ToolCall(id="1", name="final_result", arguments='{"response": "many"}')
        right = ToolCall(id="2", name="final_result", arguments='{"response": 20}')
        unknown = ToolCall(id="3", name="guess", arguments="{}")
        provider = ScriptedProvider([ChatMessage.assistant(each) for each in (wrong, right)])
        assert (await Agent(as_model(provider), output_type=int).run("How many?")).output == 20
        (result,) = provider.requests[1].messages[-1].parts
        assert isinstance(result, ToolResult)
        assert (result.tool_call_id, result.is_error) == ("1", True)
        provider = ScriptedProvider([ChatMessage.assistant(unknown), "Sorry."])
        assert (await Agent(as_model(provider)).run("How many?")).output == "Sorry."
        provider = ScriptedProvider([ChatMessage.assistant(""), "Here I am."])
        assert (await Agent(as_model(provider)).run("Hello!")).output == "Here I am."

    async def test_what_the_provider_would_not_get_is_refused(self) -> None:
        agent = Agent(as_model(ScriptedProvider([])))
        with pytest.raises(UserError, match="on the provider"):
            await agent.run("Hello!", model_settings={"temperature": 0.5})
        with pytest.raises(UserError, match="ImageUrl"):
            await agent.run([ImageUrl("https://example.com/a.png")])
