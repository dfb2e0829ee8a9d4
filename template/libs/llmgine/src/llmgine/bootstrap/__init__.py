"""Where the rooms meet: settings are read, parts are made, started and stopped.

    async def main() -> None:
        async with ApplicationBootstrap(setup=register) as app:
            await app.run_until_signal()

    with exit_on_wrong_settings():
        asyncio.run(main())

In an application that has a life of its own, such as FastAPI's:

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with ApplicationBootstrap(setup=register) as app:
            api.state.app = app
            yield
"""

from llmgine.bootstrap.application import ApplicationBootstrap, exit_on_wrong_settings
from llmgine.bootstrap.config import ApplicationConfig

__all__ = ["ApplicationBootstrap", "ApplicationConfig", "exit_on_wrong_settings"]
