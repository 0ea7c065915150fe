"""The contract of both brokers: in process, and RabbitMQ."""

import asyncio
import itertools

import pytest

from bus.amqp_broker import AmqpBroker
from bus.amqp_host import AmqpAgents
from bus.broker import Broker, Delivery, Subscription
from bus.log import PARTITIONS, Batch
from bus.memory_broker import MemoryBroker
from tests.bus.conftest import until, wipe
from tests.bus.words import batch, stream_in

EVERY = frozenset(range(PARTITIONS))
MANY = 2100
"""RabbitMQ gives a connection 2,047 channels."""


async def taken(subscription: Subscription) -> Delivery:
    delivery = await subscription.next(5)
    assert delivery is not None
    await delivery.ack()
    return delivery


async def drained(subscription: Subscription, events: int) -> list[Batch]:
    batches: list[Batch] = []
    while sum(len(b.events) for b in batches) < events:
        batches.append((await taken(subscription)).batch)
    return batches


@pytest.mark.parametrize("partitions", [None, EVERY])
async def test_a_group_receives_the_whole_log_in_order(broker: Broker, partitions: frozenset[int] | None):
    subscription = await broker.subscribe("g", partitions)
    await broker.publish([batch(0, 3), batch(3, 2)])
    assert [(await taken(subscription)).batch for _ in range(2)] == [batch(0, 3), batch(3, 2)]
    await broker.publish([batch(5, 1)])
    received = (await taken(subscription)).batch
    assert (received.previous, [e.position for e in received.events]) == (5, [6])
    await subscription.close()


async def test_what_was_published_is_what_arrives(broker: Broker):
    subscription = await broker.subscribe("g")
    sent = batch(0, 4, ("tally/a", "tally/ü"))
    await broker.publish([sent])
    assert (await taken(subscription)).batch == sent
    await subscription.close()


async def test_nothing_comes_when_nothing_is_published(broker: Broker):
    subscription = await broker.subscribe("g")
    assert await subscription.next(0.05) is None
    assert not subscription.more_waiting
    await subscription.close()


async def test_many_batches_stay_in_order(broker: Broker):
    subscription = await broker.subscribe("g")
    await broker.publish([batch(n, 1) for n in range(200)])
    positions = [e.position for b in await drained(subscription, 200) for e in b.events]
    assert positions == list(range(1, 201))
    await subscription.close()


async def test_a_reader_of_some_partitions_is_told_of_what_it_missed(broker: Broker):
    mine, other = stream_in(3), stream_in(9)
    subscription = await broker.subscribe("g", frozenset([3]))
    await broker.publish([batch(0, 6, (mine, other))])  # even positions are mine
    first = (await drained(subscription, 3))[0]
    assert [e.position for e in first.events] == [2, 4, 6]
    assert first.previous < 2
    await broker.publish([batch(6, 2, (mine, other))])
    second = (await drained(subscription, 1))[0]
    assert (second.previous, second.last) == (6, 8)
    await broker.publish([batch(20, 2, (mine, other))])  # somebody else published 9 to 20
    third = (await drained(subscription, 1))[0]
    assert third.previous > 8
    await subscription.close()


async def test_one_subscription_covers_a_set_of_partitions(broker: Broker):
    streams = [stream_in(n) for n in range(PARTITIONS)]
    half = frozenset(range(8))
    subscription = await broker.subscribe("g", half)
    await broker.publish([batch(0, 64, streams)])
    batches = await drained(subscription, 32)
    assert {e.partition for b in batches for e in b.events} == set(half)
    for b in batches:
        assert len({e.partition for e in b.events}) == 1
        assert [e.position for e in b.events] == sorted(e.position for e in b.events)
    await subscription.close()


async def test_everybody_who_watches_hears_everything(broker: Broker):
    one, two = await broker.watch(), await broker.watch()
    await broker.publish([batch(0, 2)])
    assert (await taken(one)).batch == (await taken(two)).batch
    await one.close()
    await broker.publish([batch(2, 1)])
    assert (await taken(two)).batch.last == 3
    await two.close()


async def test_a_slow_reader_loses_batches_not_memory():
    """In process: what does not fit is dropped; the hole shows in `previous`, and the reader goes to the log."""
    broker = MemoryBroker()
    subscription = await broker.subscribe("g")
    for n in range(2000):
        broker.hand_on(batch(n, 1))
    received = 0
    while (await subscription.next(0.0)) is not None:
        received += 1
    assert 0 < received < 2000


async def test_a_word_of_ours_comes_back(broker: Broker):
    assert broker.hears
    assert await broker.echo(5.0)


async def test_a_host_hears_what_it_is_told_in_order(broker: Broker):
    link = await broker.link("h1")
    for n in range(20):
        await broker.tell("h1", b"word %d" % n)
    assert [await asyncio.wait_for(link.receive(), 5) for _ in range(20)] == [b"word %d" % n for n in range(20)]
    await link.close()


async def test_a_word_for_nobody_is_lost_without_complaint(broker: Broker):
    await broker.tell("h2", b"anybody there?")


async def test_reports_reach_one_of_those_who_listen_and_come_in_order_for_each_host(broker: Broker):
    heard: list[tuple[str, bytes]] = []

    async def hear(host: str, message: bytes) -> None:
        await asyncio.sleep(0)
        heard.append((host, message))

    await broker.listen(hear)
    await broker.listen(hear)
    links = [await broker.link("h1"), await broker.link("h2")]
    for n, link in itertools.product(range(10), links):
        await link.report(b"%d" % n)
    await until(lambda: len(heard) >= 20)
    assert sorted(heard) == sorted((host, b"%d" % n) for host in ("h1", "h2") for n in range(10))
    for link in links:
        await link.close()


async def test_one_listener_takes_the_reports_of_a_host_in_order(broker: Broker):
    heard: list[bytes] = []

    async def hear(host: str, message: bytes) -> None:
        await asyncio.sleep(0.002 if message == b"0" else 0)
        heard.append(message)

    await broker.listen(hear)
    link = await broker.link("h1")
    for n in range(10):
        await link.report(b"%d" % n)
    await until(lambda: len(heard) == 10)
    assert heard == [b"%d" % n for n in range(10)]
    await link.close()


async def test_a_report_that_cannot_be_taken_holds_up_nobody(broker: Broker):
    heard: list[bytes] = []

    async def hear(host: str, message: bytes) -> None:
        if message == b"bad":
            raise ValueError(message)
        heard.append(message)

    await broker.listen(hear)
    link = await broker.link("h1")
    await link.report(b"bad")
    await link.report(b"good")
    await until(lambda: heard == [b"good"])
    await link.close()


async def test_a_heartbeat_waits_for_no_report(broker: Broker):
    heard: list[bytes] = []
    go_on = asyncio.Event()

    async def hear(host: str, message: bytes) -> None:
        if message == b"report":
            await go_on.wait()
        heard.append(message)

    await broker.listen(hear)
    link = await broker.link("h1")
    await link.report(b"report")
    await link.beat(b"beat")
    await until(lambda: heard == [b"beat"])
    go_on.set()
    await until(lambda: heard == [b"beat", b"report"])
    await link.close()


async def test_of_heartbeats_the_newest_counts(broker: Broker):
    heard: list[bytes] = []
    go_on = asyncio.Event()

    async def hear(host: str, message: bytes) -> None:
        heard.append(message)
        await go_on.wait()

    await broker.listen(hear)
    link = await broker.link("h1")
    await link.beat(b"0")
    await until(lambda: heard)
    for n in range(1, 50):
        await link.beat(b"%d" % n)
    go_on.set()
    await until(lambda: heard[-1] == b"49")
    assert heard == sorted(set(heard), key=int)
    await link.close()


@pytest.mark.live
@pytest.mark.slow
async def test_one_process_plays_more_hosts_than_a_connection_has_channels(rabbitmq: str):
    await wipe(rabbitmq)
    broker, hosts = AmqpBroker(rabbitmq), AmqpAgents(rabbitmq)
    await broker.start()
    await hosts.start()
    heard: set[str] = set()

    async def hear(host: str, message: bytes) -> None:
        heard.add(host)

    await broker.listen(hear)
    links = {name: await hosts.link(name) for name in (f"many-{n}" for n in range(MANY))}
    for name, link in links.items():
        await broker.tell(name, name.encode())
        await link.beat(b"beat")
    for name, link in links.items():
        assert await asyncio.wait_for(link.receive(), 10) == name.encode()
    await until(lambda: heard == links.keys())
    await hosts.close()
    await broker.close()


async def test_a_host_answers_what_it_is_asked(broker: Broker):
    link = await broker.link("h1")

    async def answer(question: bytes) -> bytes:
        return question[::-1]

    await link.answer(answer)
    answers = await asyncio.gather(*(broker.ask("h1", b"abc%d" % n, 5) for n in range(10)))
    assert answers == [b"%dcba" % n for n in range(10)]
    await link.close()


async def test_who_does_not_answer_is_not_waited_for(broker: Broker):
    with pytest.raises(TimeoutError):
        await broker.ask("h2", b"hello?", 0.2)
    link = await broker.link("h1")

    async def sleepy(question: bytes) -> bytes:
        await asyncio.sleep(30)
        return b""

    await link.answer(sleepy)
    with pytest.raises(TimeoutError):
        await broker.ask("h1", b"hello?", 0.2)
    await link.close()


async def test_it_may_be_started_again(broker: Broker):
    await broker.start()
    subscription = await broker.subscribe("g")
    await broker.publish([batch(0, 1)])
    assert (await taken(subscription)).batch.last == 1
    await subscription.close()
