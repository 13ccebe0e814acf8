"""Requests too large for one commit, when the process ends in the middle of them."""

from __future__ import annotations

import pytest

from berid.flow import load
from berid.flow.accept import accept
from berid.flow.sweep import undo_left_loads
from tests.support.builders import BALANCE_MICROS, WALLET_ID, make_caller, make_runtime, make_submission
from tests.support.database import ask

MANY = [f"9665{number:08d}" for number in range(1, 1_102)]


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("until", ["OPEN", "PAGES"])
async def test_left_load_is_undone_at_the_next_start(
    store_url: str, until: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_runtime(store_url) as rt:
        do = rt.store.hot.do

        async def do_and_end(verb: object, items: object) -> object:
            if verb is load.UNDO:
                raise Ended
            found = await do(verb, items)  # type: ignore[arg-type]
            if verb is getattr(load, until):
                raise Ended
            return found

        with monkeypatch.context() as patched:
            patched.setattr(type(rt.store.hot), "do", lambda _, verb, items: do_and_end(verb, items))
            with pytest.raises(Ended):
                await accept(rt, make_caller(rt), make_submission(*MANY))
        assert await ask(store_url, "SELECT state FROM message") == [("loading",)]

        assert await undo_left_loads(rt) == 1
        assert await ask(store_url, "SELECT count(*) FROM message") == [(0,)]
        assert await ask(store_url, "SELECT count(*) FROM delivery") == [(0,)]
        wallet = await ask(store_url, "SELECT available_micros, held_micros FROM wallet WHERE id = $1", WALLET_ID)
        assert wallet == [(BALANCE_MICROS, 0)]


async def test_load_of_another_process_is_left_alone(store_url: str) -> None:
    async with make_runtime(store_url) as rt:
        await accept(rt, make_caller(rt), make_submission(*MANY))
        await ask(store_url, "UPDATE message SET state = 'loading', id = id + 1 RETURNING id")
        assert await undo_left_loads(rt) == 0
