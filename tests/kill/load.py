"""Customers that never give up: they send one by one, in batches and large lists, ask for codes, cancel, and remember every yes.

Each recipient's number is used once, so that a number stands for a delivery: in what we answered, in the database, at the
carrier. What got no answer is asked again with the same idempotency key until it gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from berid import demo
from tests.support.site import Site

WORKERS = 16
PAUSE_S = 0.02
"""What a customer waits between two requests: together they send some hundred messages a second."""

BACKLOG = 1_500
"""How much may wait on our side: enough that the lanes are full at every death, and not so much that the end takes long."""

LARGE = 1_001
"""Recipients of a large request: one more than fit a commit."""

MOODS = ("0012", "0013", "0014")
"""Numbers whose receipts come thrice, before the response, or with their id written in another way."""


@dataclass
class Load:
    """Sends until `stop`. `accepted` are the numbers for which a yes was read, `asked` all that were ever asked for."""

    site: Site
    chance: random.Random
    accepted: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    """Numbers of messages that we try to cancel before they leave."""
    broken: int = 0
    """Requests that got no answer."""
    wrong: list[str] = field(default_factory=list)
    """Answers that should not have come."""
    is_large: bool = False
    """Whether to send large lists as well: they cost much."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _keys: itertools.count[int] = field(default_factory=itertools.count)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _is_stopping: bool = False
    _ahead_at_start: int = 0

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work()) for _ in range(WORKERS)]
        self._tasks += [loop.create_task(self._cancel()), loop.create_task(self._write_back())]
        self._tasks.append(loop.create_task(self._send_large()))

    async def stop(self) -> None:
        """Send nothing new, and wait until everything asked for has its answer."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    def number(self) -> str:
        """A number that was never used."""
        count = next(self._numbers)
        if count % 20 == 0:
            number = f"9665{5000 + count // 20 // len(MOODS):04d}{MOODS[count // 20 % len(MOODS)]}"
        else:
            number = f"9665{count // 9000:04d}{1000 + count % 9000}"
        self.asked.add(number)
        return number

    def go_on(self) -> None:
        """The process was started again: what it has not sent by now, it may never send, for it was in doubt."""
        self._ahead_at_start = self._ahead()

    def _ahead(self) -> int:
        """How much more was accepted than the carrier has taken."""
        return len(self.accepted) - self.site.carrier.counters.accepted

    async def _work(self) -> None:
        while not self._is_stopping:
            if self._ahead() > self._ahead_at_start + BACKLOG:
                await asyncio.sleep(0.1)
                continue
            dice = self.chance.random()
            if dice < 0.2:
                await self._send_batch([self.number() for _ in range(self.chance.randint(2, 20))])
            elif dice < 0.3:
                await self._send_code(self.number())
            else:
                await self._send_one(self.number())
            await asyncio.sleep(PAUSE_S)

    async def _send_one(self, number: str) -> None:
        body = {"to": number, "text": _text(number), "sender": demo.SENDER}
        status, answer = await self._ask("/api/v1/messages", body)
        if status == 201 and answer["total"] == 1:
            self.accepted.add(number)
        else:
            self.wrong.append(f"{status} {answer}")

    async def _send_batch(self, numbers: list[str]) -> None:
        messages = [{"to": number, "text": _text(number), "sender": demo.SENDER} for number in numbers]
        status, answer = await self._ask("/api/v1/messages/batch", {"messages": messages})
        if status == 200 and answer["accepted"] == len(numbers):
            self.accepted.update(numbers)
        else:
            self.wrong.append(f"{status} {str(answer)[:300]}")

    async def _send_code(self, number: str) -> None:
        """One-time passwords have no key: what got no answer is not asked again."""
        status, answer = await self._try("/api/v1/otp", {"to": number, "sender": demo.SENDER}, {})
        if status == 201:
            self.accepted.add(number)
        elif status not in (0, 429, 503):  # 429: our numbers are neighbours, which codes are not sent to in a row
            self.wrong.append(f"{status} {answer}")

    async def _cancel(self) -> None:
        """Send a message for later, or behind all others, and cancel it: the one before its time has come, the other mostly when
        it waits in a lane already."""
        for place in itertools.count():
            if self._is_stopping:
                return
            number = self.number()
            self.cancelled.add(number)
            body: dict[str, Any] = {"to": number, "text": _text(number), "sender": demo.SENDER}
            body |= {"send_at": int(time.time() * 1000) + 3_600_000} if place % 2 else {"priority": "bulk"}
            status, answer = await self._ask("/api/v1/messages", body)
            if status != 201:
                self.wrong.append(f"{status} {answer}")
                continue
            self.accepted.add(number)
            while (await self._try(f"/api/v1/messages/{answer['id']}/cancel", {}, {}))[0] in (0, 503):
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)

    async def _write_back(self) -> None:
        """People write to us."""
        while not self._is_stopping:
            self.site.carrier.send_mo("966500009999", demo.SENDER, "hello")
            await asyncio.sleep(0.1)

    async def _send_large(self) -> None:
        """The same large list twice at once, with one key: one of the two is taken back."""
        while not self._is_stopping:
            await asyncio.sleep(0.1)
            if not self.is_large:
                continue
            numbers = [self.number() for _ in range(LARGE)]
            body = {"to": numbers, "text": _text("many"), "sender": demo.SENDER}
            key = f"large{next(self._keys)}"
            answers = await asyncio.gather(*(self._ask("/api/v1/messages", body, key) for _ in range(2)))
            if all(status == 201 and answer["total"] == LARGE for status, answer in answers):
                self.accepted.update(numbers)
            else:
                self.wrong.append(str([(status, str(answer)[:200]) for status, answer in answers]))

    async def _ask(self, path: str, body: dict[str, Any], key: str = "") -> tuple[int, Any]:
        """Ask until there is an answer that is not "later"."""
        headers = {"Idempotency-Key": key or f"key{next(self._keys)}"}
        while True:
            status, answer = await self._try(path, body, headers)
            if status not in (0, 503):
                return status, answer
            await asyncio.sleep(0.1)

    async def _try(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        """One request; status 0 if there was no answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            return await self.site.call("POST", path, body, headers=headers)
        self.broken += 1
        return 0, None


def _text(number: str) -> str:
    return f"Your order {number} is on its way."
