"""Messages from people, on both databases: stored once, put together from parts, told to their owner."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from berid.base.ids import IdMaker
from berid.base.secret import Vault
from berid.config import Config
from berid.domain.directory import Directory
from berid.domain.report import DEFAULT_EVENTS, Endpoint
from berid.flow.inbound import ID_REPEAT_S, PART_PATIENCE_S, REPEAT_S, InboundSms, receive, sweep_parts
from berid.flow.ports import Bundle, Runtime
from berid.metrics import Metrics
from berid.queue.lanes import Lane
from berid.store import open_store
from berid.store.hot import StoreAway
from tests.support.database import ask

NOW_MS = 1_795_000_000_000 // 60_000 * 60_000
ACCOUNT, APPLICATION, OTHER_APPLICATION = 7, 8, 9
SHORT_CODE, LONG_NUMBER = "5050", "908502221100"
PERSON = "905321234567"


@dataclass
class HandClock:
    """Time that stands until a test moves it."""

    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def ticks_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits for time")


@dataclass
class World:
    """A runtime with a store, and what a test asks of it."""

    rt: Runtime
    clock: HandClock = field(default_factory=HandClock)

    async def restart(self) -> None:
        """What a crash leaves: another process on the same database."""
        await self.rt.store.close()
        self.rt = replace(self.rt, store=await open_store(self.rt.store.url, self.clock), lanes={})

    async def stored(self) -> list[tuple[Any, ...]]:
        return await ask(
            self.rt.store.url,
            "SELECT account_id, connector_id, sender, recipient, body, keyword, received_ms FROM inbound ORDER BY id",
        )

    async def bodies(self) -> list[str]:
        return [row[4] for row in await self.stored()]

    async def parts(self) -> list[tuple[int, str]]:
        rows = await ask(self.rt.store.url, "SELECT number, body FROM inbound_part ORDER BY reference, number")
        return [(row[0], row[1]) for row in rows]

    async def told(self) -> list[tuple[int, dict[str, Any]]]:
        rows = await ask(self.rt.store.url, "SELECT endpoint_id, payload FROM callback ORDER BY id")
        return [(row[0], json.loads(row[1])) for row in rows]


def endpoint(identifier: int, application_id: int = 0, **changes: Any) -> Endpoint:
    plain = Endpoint(
        identifier, ACCOUNT, application_id, "native", "https://a.example/", "a.example", "", DEFAULT_EVENTS, 1, "on"
    )
    return replace(plain, **changes)


def directory(*endpoints: Endpoint) -> Directory:
    return Directory(
        numbers={SHORT_CODE: (ACCOUNT, APPLICATION), LONG_NUMBER: (ACCOUNT, APPLICATION)},
        endpoints={ACCOUNT: endpoints},
        endpoint_by_id={each.id: each for each in endpoints},
    )


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    await ask(store_url, "INSERT INTO account (id, name, rules) VALUES ($1, 'Owner', '{}')", ACCOUNT)
    clock = HandClock()
    nothing: Any = None
    rt = Runtime(
        config=Config(data_dir=tmp_path),
        clock=clock,
        ids=IdMaker(clock.now_ms),
        slot=0,
        vault=Vault(bytes(32)),
        store=await open_store(store_url, clock),
        http=nothing,
        metrics=Metrics(),
        channels={},
        directory=directory(),
    )
    made = World(rt, clock)
    yield made
    await made.rt.store.close()


def message(text: str, **changes: Any) -> InboundSms:
    return replace(InboundSms(3, PERSON, SHORT_CODE, text, -1, 1, 1, NOW_MS), **changes)


def part(number: int, total: int, text: str, **changes: Any) -> InboundSms:
    return message(text, reference=changes.pop("reference", 77), number=number, total=total, **changes)


async def test_message_is_stored_with_its_owner_and_its_keyword(world: World) -> None:
    await receive(world.rt, [message("İPTAL"), message("merhaba", sender="905329999999")])
    assert await world.stored() == [
        (ACCOUNT, 3, PERSON, SHORT_CODE, "İPTAL", "stop", NOW_MS),
        (ACCOUNT, 3, "905329999999", SHORT_CODE, "merhaba", "", NOW_MS),
    ]


async def test_number_is_known_however_the_carrier_writes_it(world: World) -> None:
    await receive(world.rt, [message("a", recipient=f"00{LONG_NUMBER}"), message("b", recipient=f"+{LONG_NUMBER}")])
    assert [row[0] for row in await world.stored()] == [ACCOUNT, ACCOUNT]


async def test_message_to_a_number_of_nobody_is_kept_for_the_operator(world: World) -> None:
    world.rt.directory = directory(endpoint(1))
    await receive(world.rt, [message("hello", recipient="7777")])
    assert [row[0] for row in await world.stored()] == [0]
    assert await world.told() == []


async def test_owner_is_told_where_he_wants_to_be(world: World) -> None:
    world.rt.directory = directory(
        endpoint(1),
        endpoint(2, APPLICATION, kind="smpp"),
        endpoint(3, OTHER_APPLICATION),
        endpoint(4, state="off"),
        endpoint(5, events=frozenset({"message.sent"})),
    )
    await receive(world.rt, [message("إيقاف")])
    (first, payload), (second, same) = await world.told()
    assert (first, second) == (1, 2)
    assert same == payload
    assert payload.pop("id").startswith("inb_")
    assert payload == {
        "type": "message.received",
        "created_ms": NOW_MS,
        "account": f"acc_{ACCOUNT}",
        "channel": "sms",
        "from": PERSON,
        "to": SHORT_CODE,
        "text": "إيقاف",
        "keyword": "stop",
        "received_ms": NOW_MS,
    }
    jobs = await ask(world.rt.store.url, "SELECT kind, lane, lease_until_ms, due_ms FROM job")
    assert jobs == [("callback", "ha.example", 0, NOW_MS)] * 2


async def test_callback_goes_straight_into_a_lane_that_is_served_here(world: World) -> None:
    world.rt.directory = directory(endpoint(1))
    lane: Lane[Bundle] = Lane("ha.example", 10)
    world.rt.lanes["ha.example"] = lane
    await receive(world.rt, [message("hello")])
    assert [tell.event for bundle in lane.take(10) for tell in bundle.tells] == ["message.received"]
    assert await ask(world.rt.store.url, "SELECT lease_until_ms > 0 FROM job") in ([(1,)], [(True,)])


@pytest.mark.parametrize("later_s", [0, 1, REPEAT_S - 1, REPEAT_S])
async def test_repetition_by_the_carrier_is_stored_once(world: World, later_s: int) -> None:
    world.rt.directory = directory(endpoint(1))
    start_ms = NOW_MS + 59_000  # near the end of a step, so that the repetition falls into the next
    await receive(world.rt, [message("yes", received_ms=start_ms)])
    await world.restart()
    await receive(world.rt, [message("yes", received_ms=start_ms + later_s * 1000, in_doubt=True)])
    assert await world.bodies() == ["yes"]
    assert len(await world.told()) == 1


async def test_same_word_a_while_later_is_another_message(world: World) -> None:
    for place in range(3):
        await receive(world.rt, [message("yes", received_ms=NOW_MS + place * (REPEAT_S + 1) * 1000, in_doubt=True)])
    assert await world.bodies() == ["yes"] * 3


async def test_word_written_twice_is_there_twice_where_the_carrier_has_no_reason_to_repeat(world: World) -> None:
    world.rt.directory = directory(endpoint(1))
    await receive(world.rt, [message("yes"), message("yes")])
    await receive(world.rt, [message("yes", received_ms=NOW_MS + 1)])
    assert await world.bodies() == ["yes"] * 3
    assert len(await world.told()) == 3
    await receive(world.rt, [message("yes", received_ms=NOW_MS + 2, in_doubt=True)])
    assert await world.bodies() == ["yes"] * 3


async def test_words_that_come_together_after_a_break_are_all_kept(world: World) -> None:
    await receive(world.rt, [message("yes", in_doubt=True), message("yes", in_doubt=True)])
    assert await world.bodies() == ["yes"] * 2


@pytest.mark.parametrize(
    "changes",
    [{"text": "yes!"}, {"sender": "905320000000"}, {"recipient": LONG_NUMBER}, {"connector_id": 4}, {"mark": "02"}],
)
async def test_what_differs_is_not_a_repetition(world: World, changes: dict[str, Any]) -> None:
    await receive(world.rt, [message("yes", mark="01")])
    again = message("yes", mark="01", in_doubt=True)
    await receive(world.rt, [again, replace(again, **changes)])
    assert len(await world.stored()) == 2


async def test_carriers_own_id_tells_repetitions_for_certain(world: World) -> None:
    first = message("yes", carrier_id="A1")
    await receive(world.rt, [first, message("yes", carrier_id="A2")])
    other = message("yes", carrier_id="A1", connector_id=4)
    await receive(world.rt, [replace(first, received_ms=NOW_MS + ID_REPEAT_S * 1000), other])
    assert [row[1] for row in await world.stored()] == [3, 3, 4]


async def test_id_that_a_carrier_gives_to_everything_hides_nothing(world: World) -> None:
    for place, text in enumerate(("yes", "no", "yes")):
        received_ms = NOW_MS + place * (ID_REPEAT_S * 1000 + 1)
        await receive(world.rt, [message(text, carrier_id="0", received_ms=received_ms)])
    assert await world.bodies() == ["yes", "no", "yes"]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("batched", [True, False])
async def test_parts_are_joined_in_their_order(world: World, order: tuple[int, ...], batched: bool) -> None:
    parts = [part(number, 3, f"[{number}]", received_ms=NOW_MS + place) for place, number in enumerate(order)]
    if batched:
        await receive(world.rt, parts)
    else:
        for each in parts:
            await receive(world.rt, [each])
    assert [(row[4], row[6]) for row in await world.stored()] == [("[1][2][3]", NOW_MS + 2)]
    assert await world.parts() == []


async def test_parts_wait_on_disk(world: World) -> None:
    await receive(world.rt, [part(2, 2, "world"), message("other")])
    assert await world.bodies() == ["other"]
    assert await world.parts() == [(2, "world")]
    await world.restart()
    await receive(world.rt, [part(1, 2, "hello ")])
    assert await world.bodies() == ["other", "hello world"]


async def test_parts_that_come_over_several_binds_at_once_meet(world: World) -> None:
    await asyncio.gather(*(receive(world.rt, [part(number, 5, str(number))]) for number in (4, 2, 5, 1, 3)))
    assert await world.bodies() == ["12345"]
    assert await world.parts() == []


@pytest.mark.parametrize("changes", [{"reference": 78}, {"sender": "905320000000"}, {"recipient": LONG_NUMBER}])
async def test_parts_of_different_messages_stay_apart(world: World, changes: dict[str, Any]) -> None:
    await receive(world.rt, [part(1, 2, "a")])
    await receive(world.rt, [part(2, 2, "b", **changes)])
    assert await world.stored() == []
    assert len(await world.parts()) == 2


async def test_repeated_part_is_kept_once(world: World) -> None:
    await receive(world.rt, [part(1, 2, "a")])
    await receive(world.rt, [part(1, 2, "a")])
    assert await world.parts() == [(1, "a")]
    await receive(world.rt, [part(2, 2, "b")])
    assert await world.bodies() == ["ab"]


@pytest.mark.parametrize("repeated", [(1, 2, 3), (3,), (2, 3), (1,)])
@pytest.mark.parametrize("batched", [True, False])
async def test_parts_repeated_after_their_message_was_stored_are_dropped(
    world: World, repeated: tuple[int, ...], batched: bool
) -> None:
    parts = [part(number, 3, str(number)) for number in (1, 2, 3)]
    for batch in [parts] if batched else [[each] for each in parts]:
        await receive(world.rt, batch)
    await world.restart()
    for number in repeated:
        await receive(world.rt, [part(number, 3, str(number), in_doubt=True, received_ms=NOW_MS + 1_000)])
    assert await world.bodies() == ["123"]
    assert await world.parts() == []


async def test_long_message_written_twice_is_there_twice(world: World) -> None:
    for _ in range(2):
        await receive(world.rt, [part(1, 2, "a"), part(2, 2, "b")])
    assert await world.bodies() == ["ab", "ab"]
    assert await world.parts() == []


@pytest.mark.parametrize("later", [part(1, 2, "new "), part(1, 3, "new ")])
async def test_reference_used_again_ends_the_message_before(world: World, later: InboundSms) -> None:
    await receive(world.rt, [part(1, 2, "old ")])
    await receive(world.rt, [later])
    assert await world.bodies() == ["old …"]
    assert await world.parts() == [(1, "new ")]


async def test_what_lacks_parts_after_a_day_is_told_with_its_gaps(world: World) -> None:
    await receive(world.rt, [part(2, 4, "b"), part(4, 4, "d"), part(1, 2, "x", reference=5)])
    world.clock.ms = NOW_MS + PART_PATIENCE_S * 1000
    assert await sweep_parts(world.rt) == 0
    world.clock.ms += 1
    assert await sweep_parts(world.rt) == 2
    assert sorted(await world.bodies()) == ["x…", "…b…d"]
    assert await world.parts() == []
    assert await sweep_parts(world.rt) == 0


async def test_part_that_came_lately_keeps_the_others_waiting(world: World) -> None:
    await receive(world.rt, [part(1, 3, "a")])
    world.clock.ms += PART_PATIENCE_S * 1000 + 1
    await receive(world.rt, [part(2, 3, "b", received_ms=world.clock.ms)])
    assert await sweep_parts(world.rt) == 0
    assert await world.stored() == []


async def test_store_that_is_away_is_said_and_leaves_no_place_taken(world: World) -> None:
    world.rt.directory = directory(endpoint(1))
    lane: Lane[Bundle] = Lane("ha.example", 1)
    world.rt.lanes["ha.example"] = lane
    await world.rt.store.hot.stop()
    with pytest.raises(StoreAway):
        await receive(world.rt, [message("hello")])
    assert lane.room == 1


@pytest.mark.parametrize(("word", "is_in_the_book"), [("STOP", True), ("إيقاف", True), ("hello", False)])
async def test_a_word_of_refusal_enters_the_suppression_book(world: World, word: str, is_in_the_book: bool) -> None:
    await receive(world.rt, [message(word), message(word)])
    found = await ask(world.rt.store.url, "SELECT recipient FROM suppression")
    assert bool(found) is is_in_the_book


async def test_word_of_refusal_is_heeded_though_the_process_ended_before_it_could(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr("berid.flow.inbound.heard", die)
        with pytest.raises(RuntimeError):
            await receive(world.rt, [message("STOP")])
    await receive(world.rt, [message("STOP", in_doubt=True)])
    assert await world.bodies() == ["STOP"]
    assert len(await ask(world.rt.store.url, "SELECT recipient FROM suppression")) == 1
