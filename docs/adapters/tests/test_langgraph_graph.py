from llmgine.bootstrap import ApplicationBootstrap
from suite import AgentSuite

from langgraph_graph import Ask, register


class TestLanggraphGraph(AgentSuite):
    def register(self, app: ApplicationBootstrap) -> None:
        register(app)

    def ask(self, question: str) -> Ask:
        return Ask(question=question)
