"""The interpreter's switch interval is short only while history is taken in."""

import sys

import pytest

from bus.settings import Settings
from bus.transport.connection import Client
from storage import service
from storage.store import switch_interval


def test_the_interval_is_put_back_even_after_an_error():
    before = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        _fail_with_short_interval()
    assert sys.getswitchinterval() == before


def _fail_with_short_interval():
    with switch_interval.short_switch_interval():
        assert sys.getswitchinterval() == pytest.approx(switch_interval.SECONDS)
        raise ZeroDivisionError


async def test_the_service_sets_a_short_interval(bus: Client, base_settings: Settings):
    before = sys.getswitchinterval()
    async with service.running(base_settings):
        assert sys.getswitchinterval() == pytest.approx(switch_interval.SECONDS)
    assert sys.getswitchinterval() == before
