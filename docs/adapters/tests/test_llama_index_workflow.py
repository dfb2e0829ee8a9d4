from llmgine.bootstrap import ApplicationBootstrap
from suite import AgentSuite

from llama_index_workflow import Ask, register


class TestLlamaIndexWorkflow(AgentSuite):
    def register(self, app: ApplicationBootstrap) -> None:
        register(app)

    def ask(self, question: str) -> Ask:
        return Ask(question=question)
