"""Rates: a second's and a minute's, counted for those who may, not for those who may not."""

from __future__ import annotations

from berid.flow.limits import Limits


def test_a_steady_rate_lets_a_second_of_messages_go_at_once_and_then_one_by_one() -> None:
    limits = Limits()
    assert [limits.take("k", 10.0, 1, 5, 0) for _ in range(5)] == [0] * 5
    wait_s = limits.take("k", 10.0, 1, 5, 0)
    assert 0 < wait_s <= 0.2
    assert limits.take("k", 10.0 + wait_s + 0.001, 1, 5, 0) == 0


def test_a_request_larger_than_the_rate_goes_when_the_bucket_is_full_and_is_paid_for_later() -> None:
    limits = Limits()
    assert limits.take("k", 0.0, 50, 5, 0) == 0
    assert limits.take("k", 5.0, 1, 5, 0) > 0
    assert limits.take("k", 9.3, 1, 5, 0) == 0


def test_the_minute_counts_every_message_of_the_last_sixty_seconds() -> None:
    limits = Limits()
    for second in range(10):
        assert limits.take("k", float(second), 1, 0, 10) == 0
    assert limits.take("k", 30.0, 1, 0, 10) > 0
    assert limits.last_minute("k", 30.0) == 10
    assert limits.take("k", 60.5, 1, 0, 10) == 0


def test_what_is_refused_is_not_counted() -> None:
    limits = Limits()
    assert limits.take("k", 0.0, 3, 0, 3) == 0
    for _ in range(5):
        assert limits.take("k", 1.0, 1, 0, 3) > 0
    assert limits.last_minute("k", 1.0) == 3


def test_keys_do_not_share() -> None:
    limits = Limits()
    assert limits.take("a", 0.0, 1, 0, 1) == 0
    assert limits.take("b", 0.0, 1, 0, 1) == 0
    assert limits.last_minute("c", 0.0) == 0


def test_silent_keys_are_forgotten() -> None:
    limits = Limits()
    for number in range(1000):
        limits.take(number, 0.0, 1, 1, 0)
    limits.take("later", 1000.0, 1, 1, 0)
    assert len(limits._counters) == 1
