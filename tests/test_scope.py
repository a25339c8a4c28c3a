import signal

import pytest
import trio

from p2p.scope import close_forcefully, open_scope, open_scope_until_signal


async def fail(error: BaseException) -> None:
    raise error


async def test_tasks_end_with_the_body() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    async with open_scope() as scope:
        scope.start_soon(forever)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["task"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_scope_of_a_program(number: signal.Signals) -> None:
    ended = False
    async with open_scope_until_signal():
        try:
            signal.raise_signal(number)
            await trio.sleep_forever()
        finally:
            ended = True
    assert ended


async def test_without_a_signal_the_scope_of_a_program_ends_with_its_body() -> None:
    with pytest.raises(KeyError, match="alone"):
        async with open_scope_until_signal() as scope:
            scope.start_soon(fail, KeyError("alone"))
            await trio.sleep_forever()
    async with open_scope_until_signal() as scope:
        scope.start_soon(trio.sleep_forever)


async def test_a_tasks_failure_ends_the_body_and_leaves_as_itself() -> None:
    with pytest.raises(KeyError, match="alone"):
        async with open_scope() as scope:
            scope.start_soon(fail, KeyError("alone"))
            await trio.sleep_forever()


async def test_the_bodys_failure_leaves_as_itself() -> None:
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with open_scope() as scope:
            scope.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error


async def test_a_failure_through_several_scopes_is_still_plain() -> None:
    with pytest.raises(KeyError):
        async with open_scope() as outer, trio.open_nursery(), open_scope():
            outer.start_soon(fail, KeyError("deep"))
            await trio.sleep_forever()


@pytest.mark.parametrize("in_body", [True, False])
async def test_a_failure_keeps_what_caused_it(in_body: bool) -> None:
    async def fail_with_cause() -> None:
        try:
            raise OSError("cable")
        except OSError as exc:
            raise ValueError("lost") from exc

    with pytest.raises(ValueError, match="lost") as caught:
        async with open_scope() as scope:
            if in_body:
                await fail_with_cause()
            scope.start_soon(fail_with_cause)
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, OSError)


async def test_several_failures_leave_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_scope() as scope:
            scope.start_soon(fail, KeyError("one"))
            scope.start_soon(fail, ValueError("two"))
            await trio.sleep_forever()
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ValueError}


async def test_a_failure_during_cancellation_is_not_hidden() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    with pytest.raises(KeyError), trio.CancelScope() as outside:
        async with open_scope() as scope:
            scope.start_soon(fail_when_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            outside.cancel()
            await trio.sleep_forever()


async def test_a_cancellation_from_outside_travels_on() -> None:
    with trio.CancelScope() as outside:
        async with open_scope() as scope:
            scope.start_soon(trio.sleep_forever)
            outside.cancel()
            await trio.sleep_forever()
    assert outside.cancelled_caught


async def test_closing_forcefully_neither_waits_nor_is_skipped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow:
        closing = closed = False

        async def aclose(self) -> None:
            self.closing = True
            try:
                await trio.sleep(10)
            finally:
                self.closed = True

    for cancelled in (False, True):
        resource, start = Slow(), trio.current_time()
        with trio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            await close_forcefully(resource)
        assert resource.closing
        assert resource.closed
        assert trio.current_time() == start
