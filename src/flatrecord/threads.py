"""Threads that help with one job, where there can be any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")


class _Caller(Executor):
    """Does the work at once, in the thread that asks for it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


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


def spread(work: Callable[[Item], T], items: Iterable[Item], name: str) -> Iterator[T]:
    """What `work` makes of each item, in order; all cores work at it, and stop when the caller does."""
    with helpers(cores(), name) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)
