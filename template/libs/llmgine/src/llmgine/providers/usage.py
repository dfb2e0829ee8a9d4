"""What model calls take and cost, by session and altogether, and when it has been enough.

    app.usage.total                    # calls, tokens and cost since the application was made
    app.usage.session(session_id)      # those of an open session

Nothing of it is kept: a session's account ends with the session, and a restart begins at zero.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from llmgine.contracts import ChatMessage, LLMRequest, LLMResponse, Usage
from llmgine.errors import BudgetExceededError, ConfigurationError
from llmgine.providers.scripted_answers import estimated_usage
from llmgine.settings import BudgetSettings, PriceSettings

__all__ = ["Account", "MeteredCall", "UsageLedger"]

_MOST_SESSIONS = 10_000
_MILLION = Decimal(1_000_000)
_NOTHING = Decimal()
_NO_ANSWER = ChatMessage(role="assistant")
_DATE = re.compile(r"[-@](?:\d{8}|\d{4}-\d{2}-\d{2})\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What some calls took together.

    Attributes:
        calls: how many have ended, failed ones included.
        usage: their tokens.
        estimated: calls whose tokens are an estimate, since the provider didn't report them.
        cost: what they cost, as far as the models have prices.
        unpriced: the models without a price.
    """

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    estimated: int = 0
    cost: Decimal = _NOTHING
    unpriced: frozenset[str] = frozenset()

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return _tokens(self.usage)


def _tokens(usage: Usage) -> int:
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


class _Book:
    """One account, and what the calls under way are known to take."""

    def __init__(self, whose: str, session_id: str | None, settings: BudgetSettings) -> None:
        self.account = Account()
        self.tokens_ahead = 0
        self.cost_ahead = _NOTHING
        self._session_id = session_id
        self._limits = {
            what: Decimal(str(limit)).normalize()
            for what in ("tokens", "cost")
            if (limit := vars(settings)[f"{whose}_{what}"]) < math.inf
        }
        self._whose = whose

    @property
    def limited(self) -> bool:
        return bool(self._limits)

    def check(self) -> None:
        """Refuse a further call if what may be spent is spent."""
        for what, limit in self._limits.items():
            setting = f"budget.{self._whose}_{what}"
            if what == "cost" and self.account.unpriced:
                model = min(self.account.unpriced)
                raise ConfigurationError(
                    f"budget.prices: expected a price for {model!r}, found none; without it "
                    f"{setting} can't hold: write [budget.prices.{model!r}] with input and output"
                )
            spent = self._spent(what)
            if spent >= limit:
                raise BudgetExceededError(
                    setting, spent=spent, limit=limit, session_id=self._session_id
                )

    def _spent(self, what: str) -> Decimal:
        if what == "tokens":
            return Decimal(self.account.tokens + self.tokens_ahead)
        return self.account.cost + self.cost_ahead

    def ahead(self, tokens: int, cost: Decimal) -> None:
        self.tokens_ahead += tokens
        self.cost_ahead += cost

    def add(self, usage: Usage, model: str, cost: Decimal | None) -> None:
        account = self.account
        unpriced = account.unpriced | {model} if cost is None else account.unpriced
        self.account = replace(
            account,
            usage=account.usage + usage,
            estimated=account.estimated + ("estimated" in usage.details),
            cost=account.cost + (cost or _NOTHING),
            unpriced=unpriced,
        )


class MeteredCall:
    """A model call under way, from `UsageLedger.begin` to `end`."""

    def __init__(self, ledger: UsageLedger, books: tuple[_Book, ...], request: LLMRequest) -> None:
        self._ledger = ledger
        self._books = books
        self._request = request
        self._tokens, self._cost = 0, _NOTHING
        if any(book.limited for book in books):
            guess = replace(estimated_usage(request, _NO_ANSWER), output_tokens=0)
            self._tokens = _tokens(guess)
            self._cost = ledger.cost(guess, request.model) or _NOTHING
        for book in books:
            book.ahead(self._tokens, self._cost)

    def end(self, response: LLMResponse | None) -> None:
        """Enter the call into the accounts.

        Args:
            response: the answer, or what had come of it; a call that brought nothing took nothing.
        """
        for book in self._books:
            book.ahead(-self._tokens, -self._cost)
            book.account = replace(book.account, calls=book.account.calls + 1)
        if response is None:
            return
        usage = _completed(response, self._request)
        cost = self._ledger.cost(usage, response.model, self._request.model)
        model = response.model or self._request.model or response.provider
        for book in self._books:
            book.add(usage, model, cost)


class UsageLedger:
    """Keeps the accounts, and refuses calls beyond the budget.

    A call is refused, before it is made, once the finished calls have reached a limit, together
    with an estimate of the input of those under way. So one call, or several at once, may end
    above the limit, each by no more than its own answer; the next is refused.

    Sessions are told apart by their ids. Those that never end are kept up to the 10,000 used
    last; `forget` ends an account.

    Args:
        settings: limits and prices.
    """

    def __init__(self, settings: BudgetSettings | None = None) -> None:
        self._settings = settings or BudgetSettings()
        self._total = _Book("process", None, self._settings)
        self._sessions: OrderedDict[str, _Book] = OrderedDict()

    @property
    def total(self) -> Account:
        """The account of all calls, since the ledger was made."""
        return self._total.account

    def session(self, session_id: str) -> Account:
        """Return the account of a session; an empty one where it has made no call."""
        book = self._sessions.get(session_id)
        return Account() if book is None else book.account

    def forget(self, session_id: str) -> None:
        """End the account of a session. Calls under way still count in the total."""
        self._sessions.pop(session_id, None)

    def begin(self, session_id: str | None, request: LLMRequest) -> MeteredCall:
        """Let a call begin, or refuse it.

        Raises:
            BudgetExceededError: what may be spent is spent.
            ConfigurationError: a cost is limited, and a model that has answered has no price.
        """
        books = tuple(self._books(session_id))
        for book in books:
            book.check()
        return MeteredCall(self, books, request)

    def cost(self, usage: Usage, *models: str) -> Decimal | None:
        """Return what tokens cost; nothing where none of the model's names has a price."""
        price = _price(self._settings.prices, models)
        if price is None:
            return None
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        plain = max(0, (usage.input_tokens or 0) - read - written)
        cached = price.input if price.cached is None else price.cached
        cache_write = price.input if price.cache_write is None else price.cache_write
        sums = plain * price.input + read * cached + written * cache_write
        return (sums + (usage.output_tokens or 0) * price.output) / _MILLION

    def _books(self, session_id: str | None) -> Iterator[_Book]:
        if session_id is not None:
            book = self._sessions.pop(session_id, None)
            if book is None:
                book = _Book("session", session_id, self._settings)
            self._sessions[session_id] = book
            if len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
            yield book
        yield self._total


def _price(prices: Mapping[str, PriceSettings], models: tuple[str, ...]) -> PriceSettings | None:
    for model in (*models, *(_DATE.sub("", model) for model in models)):
        if model in prices:
            return prices[model]
    return None


def _completed(response: LLMResponse, request: LLMRequest) -> Usage:
    """Return the tokens of a call, estimated as far as they weren't reported."""
    usage = response.usage
    if usage.input_tokens is not None and usage.output_tokens is not None:
        return usage
    guess = estimated_usage(request, response.message)
    return replace(
        usage,
        input_tokens=guess.input_tokens if usage.input_tokens is None else usage.input_tokens,
        output_tokens=guess.output_tokens if usage.output_tokens is None else usage.output_tokens,
        details={**usage.details, **guess.details},
    )
