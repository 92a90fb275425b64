"""Work that is spread over threads: in order, a few items at a time, and ended by the first error."""

from itertools import count

import pytest

from flatrecord.threads import AHEAD, cores, spread


def test_results_come_in_order():
    assert list(spread(lambda i: i * i, range(1000), "test")) == [i * i for i in range(1000)]


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_items_are_taken_as_they_are_needed(threads):
    taken = []
    results = spread(lambda i: i, (taken.append(i) or i for i in count()), "test", threads)
    allowed = AHEAD * min(cores(), threads or cores()) + 1
    for i in range(100):
        assert next(results) == i and len(taken) <= i + allowed
    results.close()


def test_an_error_comes_in_its_place_and_ends_it():
    taken = []
    results = spread(lambda i: 1 // (5 - i), (taken.append(i) or i for i in count()), "test")
    assert [next(results) for _ in range(5)] == [1 // (5 - i) for i in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(taken) <= 5 + AHEAD * cores() + 1 and list(results) == []
