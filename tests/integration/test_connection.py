"""What `bus.transport.connection` adds to nats-py."""

import asyncio
from itertools import combinations

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.errors import SettingsError
from bus.settings import Settings
from bus.transport import connection
from bus.transport.embedded_server import EmbeddedServer
from tests.ports import free_port
from tests.raw_protocol import send


async def test_a_subscription_stands_when_flush_returns(
    bus: connection.Client, base_settings: Settings
):
    """nats-py's own flush overtakes commands that are not written yet: some request fails."""
    async with connection.connected(base_settings, "subscriber") as client:

        async def answer(message) -> None:
            await message.respond(b"here")

        for number in range(200):
            await client.subscribe(f"answers.{number}", cb=answer)
            await client.flush()
            assert (await bus.request(f"answers.{number}", b"", timeout=5)).data == b"here"


async def test_a_listener_hears_in_order_and_survives_what_it_raises(bus: connection.Client):
    heard: list[bytes] = []

    def hear(message: Msg) -> None:
        heard.append(message.data)
        if message.data == b"3":
            raise ValueError("this one cannot be understood")

    async with bus.listening("numbers.*", hear):
        for number in range(10):
            await bus.publish(
                "numbers.a", str(number).encode(), headers={"of": "a test"} if number % 2 else None
            )
        await bus.flush()
        assert heard == [str(number).encode() for number in range(10)]


async def test_a_listener_hears_headers_and_who_wants_a_reply(bus: connection.Client):
    heard: list[Msg] = []
    async with bus.listening("asked", heard.append):
        await bus.publish("asked", b"x", reply="_INBOX.back", headers={"Name": "value"})
        await bus.flush()
    assert (heard[0].subject, heard[0].reply, heard[0].headers) == (
        "asked",
        "_INBOX.back",
        {"Name": "value"},
    )


async def test_what_cannot_be_decoded_ends_nobodys_reading(
    nats_server: EmbeddedServer, bus: connection.Client
):
    heard: list[Msg] = []
    plain = await bus.subscribe("odd.>")
    async with bus.listening("odd.>", heard.append):
        await bus.flush()
        await send(
            nats_server,
            b"PUB odd.\xff\xfe _INBOX.\xff 1\r\n1\r\n"
            b"PUB odd.\xc3\xa4 1\r\n2\r\n"
            b"HPUB odd.status 15 16\r\nNATS/1.0 \xff\xff\r\n\r\n3\r\n"
            b"HPUB odd.none 8 9\r\nNATS/1.04\r\n"
            b"HPUB odd.value 20 21\r\nNATS/1.0\r\na: \xff\xff\xff\r\n\r\n5\r\n",
        )
        await bus.publish("odd.fine", b"6")
        await bus.flush()
    assert [(one.subject, one.data) for one in heard] == [
        ("odd.\\xff\\xfe", b"1"),
        ("odd.ä", b"2"),
        ("odd.status", b"3"),
        ("odd.none", b"4"),
        ("odd.value", b"5"),
        ("odd.fine", b"6"),
    ]
    assert heard[0].reply == "_INBOX.\\xff"
    assert [(await plain.next_msg()).data for _ in heard] == [one.data for one in heard]


async def test_a_question_that_asks_for_an_answer_to_no_inbox_is_dropped(bus: connection.Client):
    heard: list[Msg] = []
    async with bus.listening("asked", heard.append):
        for reply in ("$KV.gpuping.agent.a", "$JS.API.STREAM.DELETE.KV_gpuping", "gpuping.x"):
            await bus.publish("asked", b"x", reply=reply)
        # `_R_.` is the server's own, for answers across accounts: a client may not name it.
        for reply in ("_INBOX.a", "_INBOX_a.b"):
            await bus.publish("asked", b"x", reply=reply)
        await bus.flush()
    assert [message.reply for message in heard] == ["_INBOX.a", "_INBOX_a.b"]
    assert bus.refused_replies == {"asked": 3}


async def test_from_one_inbox_nobody_guesses_another(bus: connection.Client):
    """Whoever was asked once may know the reply subject, and may be allowed to send to inboxes."""
    replies: list[str] = []

    async def answer(message: Msg) -> None:
        replies.append(message.reply)
        await message.respond(b"")

    await bus.subscribe("asked", cb=answer)
    for _ in range(2):
        await bus.request("asked", b"", timeout=60)
    of_requests = [reply.rpartition(".")[2] for reply in replies]
    of_inboxes = [bus.new_inbox().rpartition(".")[2], replies[0].split(".")[-2]]
    for one, other in combinations((*of_requests, *of_inboxes), 2):
        assert one[:8] != other[:8]


async def test_nothing_is_heard_after_the_block(bus: connection.Client):
    heard: list[Msg] = []
    async with bus.listening("numbers", heard.append):
        pass
    await bus.publish("numbers", b"1")
    await bus.flush()
    assert not heard


async def test_a_listener_hears_again_after_the_server_came_back(
    nats_server: EmbeddedServer, base_settings: Settings
):
    heard = asyncio.Event()
    async with (
        connection.connected(base_settings, "ear") as client,
        client.listening("after", lambda _: heard.set()),
    ):
        assert nats_server.process
        nats_server.process.kill()
        async with asyncio.timeout(60):
            while not heard.is_set():
                if client.is_connected:
                    await client.publish("after", b"")
                await asyncio.sleep(0.05)


async def test_servers_that_tell_of_no_others_are_counted_by_the_addresses(base_settings):
    """Whoever asks all servers must not take the first answer for all of them."""
    absent = free_port()
    url = f"{base_settings.NATS_URL},nats://127.0.0.1:{absent}"
    async with connection.connected(replace(base_settings, NATS_URL=url), "test") as client:
        assert client.discovered_servers == []
        assert client.server_count == 2


async def test_websocket_addresses_are_not_mixed_with_others(base_settings: Settings):
    mixed = replace(base_settings, NATS_URL="wss://a.example,tls://b.example")
    with pytest.raises(SettingsError, match="one kind"):
        await connection.connect(mixed, "mixed")
