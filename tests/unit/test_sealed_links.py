"""A link opens for what it was made, until it expires, and not with one character changed."""

from datetime import UTC, datetime, timedelta

from bus.identity import sealed_links
from bus.identity.sealed_links import LinkContent

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEY = sealed_links.new_key()


def content(**changes: object) -> LinkContent:
    fields = {"kind": "badge", "agent_id": "a", "made_at": int(NOW.timestamp() * 1000)}
    return LinkContent(**(fields | changes))  # type: ignore[arg-type]


def test_what_was_sealed_is_opened():
    made = content(shown_name="Frankfurt 1")
    assert sealed_links.unseal(KEY, sealed_links.seal(KEY, made), "badge", NOW) == made


def test_no_character_may_differ():
    secret = sealed_links.seal(KEY, content())
    for position, character in enumerate(secret):
        for other in "A", "B", "_", "=", ".":
            changed = secret[:position] + other + secret[position + 1 :]
            if other != character:
                assert sealed_links.unseal(KEY, changed, "badge", NOW) is None, changed
    for changed in (secret + "A", secret[:-1], secret + "=", "", "é" * 90, "A" * 100_000):
        assert sealed_links.unseal(KEY, changed, "badge", NOW) is None


def test_another_kind_or_key_does_not_open_it():
    secret = sealed_links.seal(KEY, content())
    assert sealed_links.unseal(KEY, secret, "host", NOW) is None
    assert sealed_links.unseal(sealed_links.new_key(), secret, "badge", NOW) is None


def test_it_expires():
    end = NOW + timedelta(days=1)
    secret = sealed_links.seal(KEY, content(expires_at=int(end.timestamp() * 1000)))
    assert sealed_links.unseal(KEY, secret, "badge", end - timedelta(milliseconds=1)) is not None
    assert sealed_links.unseal(KEY, secret, "badge", end) is None


def test_the_shortest_secret_is_longer_than_every_id_and_tells_none():
    secret = sealed_links.seal(KEY, content())
    assert len(secret) > 63
    assert sealed_links.seal(KEY, content()) != secret
