"""Threads that help with one job, where there can be any."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

from ._core.workers import cores

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

SIGNALS_EVERY = 0.2  # seconds
AHEAD = 4  # items that wait for each thread, so that none of them waits for the caller


class _Caller(Executor):
    """Does the work at once, in the thread that asks for it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def helpers(count: int, name: str) -> Executor:
    """A pool of `count` threads. Where no thread can be started, the caller does the work.

    That is so in an ``atexit`` handler, where CPython refuses, and where the system's limit has been reached.
    """
    pool = ThreadPoolExecutor(count, name)
    try:
        pool.submit(int).result()
    except RuntimeError:
        return _Caller()
    return pool


def spread(work: Callable[[Item], T], items: Iterable[Item], name: str, most: int | None = None) -> Generator[T, None, None]:
    """What `work` makes of each item, in order; all cores, or `most` threads, work at it, and stop when the caller does.

    Items are taken as they are needed, so that what this holds does not grow with their number.
    """
    threads = min(cores(), most or cores())
    with helpers(threads, name) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def together(work: Callable[[int], None], count: int, name: str) -> None:
    """Call ``work(0)`` to ``work(count - 1)``, each in a thread of its own, as far as threads can be started.

    Each takes its tasks from what they share, so that one of them can do all. The first error is raised, without waiting for the
    others; `work` sees to it that they end.
    """
    pool = ThreadPoolExecutor(max(count, 1), name)
    futures: list[Future[None]] = []
    pending: set[Future[None]] = set()
    done: set[Future[None]] = set()
    try:
        for i in range(count):
            try:
                futures.append(pool.submit(work, i))
            except RuntimeError:
                break
        if not futures:
            work(0)
        pending = set(futures)
        while pending:
            # With a limit, as a signal that another thread raises in this process is handled only when this one wakes.
            done, pending = wait(pending, SIGNALS_EVERY, FIRST_COMPLETED)
            while done:
                done.pop().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # An error's traceback leads here: without this, all that the work held would wait for the garbage collector.
        futures.clear()
        pending.clear()
        done.clear()
