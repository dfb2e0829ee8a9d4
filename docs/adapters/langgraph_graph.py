"""A LangGraph graph that answers a command: its nodes call the application's own parts."""

import asyncio
from dataclasses import dataclass
from operator import add
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import ChatMessage, Command, LLMRequest, closing, fold_stream


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    question: str


class State(TypedDict):
    messages: Annotated[list[ChatMessage], add]


def register(app: ApplicationBootstrap) -> None:
    async def think(state: State) -> State:
        tools = tuple(app.tools.get_tools())
        request = LLMRequest(messages=tuple(state["messages"]), tools=tools)
        async with closing(app.provider.stream(request)) as chunks:
            response = await fold_stream(chunks)
        return {"messages": [response.message]}

    async def act(state: State) -> State:
        calls = state["messages"][-1].tool_calls
        results = await asyncio.gather(*map(app.tools.execute_tool_call, calls))
        return {"messages": [ChatMessage.tool(*results)]}

    def done(state: State) -> bool:
        return not state["messages"][-1].tool_calls

    graph = StateGraph(State)
    graph.add_node(think)
    graph.add_node(act)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", done, {True: END, False: "act"})
    graph.add_edge("act", "think")
    compiled = graph.compile()

    async def answer(command: Ask) -> str:
        end = await compiled.ainvoke({"messages": [ChatMessage.user(command.question)]})
        return end["messages"][-1].text

    app.bus.register_command_handler(Ask, answer)
