"""What stands around handlers where that is switched on: retries, guards, and what has failed.

The recommended order, the outermost first, is `DeadLetters`, `Retry`, `CircuitBreaker`,
`RateLimit`: a letter is what all attempts have failed at, each attempt passes the guards, and a
call that an open circuit refuses takes no turn from the others.

    bus.add_middleware(Retry())
    bus.add_middleware(RateLimit(RateLimitSettings(requests=20, per=60)))
"""

from llmgine.bus.middleware.circuit_breaker import CircuitBreaker
from llmgine.bus.middleware.dead_letter_file import DeadLetter
from llmgine.bus.middleware.dead_letters import DeadLetters
from llmgine.bus.middleware.rate_limit import RateLimit, TokenLimit
from llmgine.bus.middleware.replays import ReplayReport
from llmgine.bus.middleware.retry import Retry

__all__ = [
    "CircuitBreaker",
    "DeadLetter",
    "DeadLetters",
    "RateLimit",
    "ReplayReport",
    "Retry",
    "TokenLimit",
]
