"""Single requests become full batches, and errors reach whoever asked."""

from __future__ import annotations

import asyncio

import pytest

from agentic_r.agent.gather import Gather


def test_batches_are_full_while_there_is_enough_and_the_order_is_kept() -> None:
    batches: list[list[int]] = []

    def work(items: list[int]) -> list[int]:
        batches.append(items)
        return [2 * item for item in items]

    async def main(gather: Gather[int, int]) -> list[int]:
        return list(await asyncio.gather(*(gather.submit(n) for n in range(10))))

    gather = Gather(work, limit=4)
    assert asyncio.run(main(gather)) == [2 * n for n in range(10)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert asyncio.run(main(gather)) == [2 * n for n in range(10)]


def test_the_impatient_one_feeds_the_patient_one() -> None:
    sizes: list[int] = []
    first: Gather[int, int] = Gather(lambda items: items, patience=2)

    def count(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    second: Gather[int, int] = Gather(count, patience=8)

    async def one(n: int) -> int:
        for _ in range(n % 3):
            n = await first.submit(n)
        return await second.submit(n)

    async def main() -> None:
        await asyncio.gather(*(one(n) for n in range(9)))

    asyncio.run(main())
    assert sizes == [9]


def test_an_error_of_the_work_reaches_all_and_one_of_an_item_only_it() -> None:
    def work(items: list[int]) -> list[int | Exception]:
        if 0 in items:
            raise RuntimeError("all")
        return [ValueError("one") if item == 2 else item for item in items]

    async def main(items: list[int]) -> list[object]:
        gather: Gather[int, int] = Gather(work)
        jobs = (gather.submit(item) for item in items)
        return list(await asyncio.gather(*jobs, return_exceptions=True))

    assert [str(r) for r in asyncio.run(main([0, 1]))] == ["all", "all"]
    assert [str(r) for r in asyncio.run(main([1, 2]))] == ["1", "one"]


def test_a_cancelled_request_is_not_worked_on() -> None:
    seen: list[list[int]] = []

    def work(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    async def main() -> int:
        gather: Gather[int, int] = Gather(work)
        lost = asyncio.ensure_future(gather.submit(1))
        await asyncio.sleep(0)
        lost.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lost
        return await gather.submit(2)

    assert asyncio.run(main()) == 2
    assert seen == [[2]]


@pytest.mark.parametrize("patience", range(1, 16))
def test_a_loop_that_closes_under_a_batch_is_no_fault(patience: int) -> None:
    told: list[object] = []
    gather: Gather[int, int] = Gather(lambda items: items, patience=patience, threaded=True)

    async def main() -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        await loop.run_in_executor(None, int)  # there are threads to be shut down
        return gather.put(1)

    left = asyncio.run(main())
    assert told == []
    assert left.cancelled() or not left.done() or left.result() == 1

    async def again() -> int:
        return await gather.submit(2)

    assert asyncio.run(again()) == 2  # on another loop it works as before
