"""Reading ahead keeps order, stays within its depth, and ends with its block."""

import threading
import time

import pytest

from foundation.ahead import ahead


def test_items_come_in_order():
    with ahead(iter(range(100))) as items:
        assert list(items) == list(range(100))


def test_no_more_than_depth_are_made_before_they_are_used():
    made = []

    def make():
        for number in range(20):
            made.append(number)
            yield number

    with ahead(make(), depth=2) as items:
        assert next(items) == 0
        time.sleep(0.3)
        assert len(made) <= 4


def test_an_error_arrives_where_the_item_would_have():
    def make():
        yield 1
        raise ValueError("no second one")

    with ahead(make()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="no second one"):
            next(items)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()

    def endless():
        while True:
            yield 0

    with ahead(endless()) as items:
        next(items)
    assert threading.active_count() == before
