from llmgine.bus import MessageBus


def test_a_bus_that_never_started_has_its_numbers_all_the_same() -> None:
    stats = MessageBus.isolated().stats()
    assert (stats.running, stats.handlers_abandoned) == (False, 0)
