"""News over the connection: who hears what, and what a mailbox keeps."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

import embedctl
from embedctl.control.mailbox import Mailbox
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    EventRecorded,
    JobChanged,
    SampleTaken,
)
from embedctl.paths import Paths
from embedctl.records import Event
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame
from tests.support import canned
from tests.support.control import Heard, client, served
from tests.support.fake_engine import FakeEngine


def test_messages_come_as_they_were_published(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), client(home) as remote:
        remote.subscribe(heard)
        remote.runs()  # the wish to hear has arrived before this
        fake.tick()
        fake.set_active("ollama")
        event = Event(1.0, "note", "t", detail={"a": [1, 2]})
        fake.record(event)
        heard.wait_for(lambda found: EventRecorded(event) in found)
        expected = [
            ConnectionChanged(True, f"the service (PID {os.getpid()})"),
            SampleTaken(fake.sample(), fake.processes(), True),
            ActiveChanged("ollama"),
            EventRecorded(event),
        ]
        assert heard.messages == expected


def test_who_did_not_subscribe_hears_of_jobs_alone(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), client(home) as remote:
        remote._bus.subscribe(heard)
        fake.tick()
        job = remote.load("ollama")
        fake.tick()
        fake.running[job.id].finish()
        job.wait(10.0)
        assert {type(message) for message in heard.messages} == {JobChanged}


def test_several_clients_hear_and_one_that_leaves_disturbs_nobody(home: Path) -> None:
    fake, first, second = FakeEngine(), Heard(), Heard()
    with served(fake, home), client(home) as a:
        a.subscribe(first)
        with client(home) as b:
            b.subscribe(second)
            a.runs(), b.runs()
            fake.tick()
            second.wait_for(lambda found: any(isinstance(m, SampleTaken) for m in found))
        fake.set_active("ollama")
        first.wait_for(lambda found: ActiveChanged("ollama") in found)
        assert not fake.closed
        assert ActiveChanged("ollama") not in second.messages


def test_calls_of_many_threads_do_not_mix(home: Path) -> None:
    fake, wrong = FakeEngine(), []

    def ask(number: int) -> None:
        for i in range(20):
            text = f"{number}-{i}"
            if remote.embed([text]).vectors.tobytes() != twin.embed([text]).vectors.tobytes():
                wrong.append(text)

    twin = FakeEngine()
    with served(fake, home), client(home) as remote:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_client_that_does_not_read_keeps_nobody_waiting(home: Path) -> None:
    path = Paths.in_folder(home).socket
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), socket.socket(socket.AF_UNIX) as sleeper, client(home) as remote:
        sleeper.connect(str(path))
        channel = Channel(sleeper)
        channel.send(Frame({"kind": "hello", "version": embedctl.__version__}))
        assert channel.receive() is not None
        channel.send(Frame({"kind": "subscribe"}))
        remote.subscribe(heard)
        remote.runs()
        for _ in range(3_000):  # far more than a socket holds
            fake.tick()
        last = SampleTaken(fake.sample(), fake.processes(), True)
        heard.wait_for(lambda found: last in found)


def test_a_mailbox_keeps_the_latest_of_what_is_superseded_and_every_fact() -> None:
    box, fake = Mailbox(), FakeEngine()
    facts = [EventRecorded(Event(float(i), "note", f"fact {i}")) for i in range(3)]
    samples = [SampleTaken(canned.sample(float(i)), (), True) for i in range(5)]
    for message in (samples[0], facts[0], *samples[1:], BackendChanged(fake.backends["native"]), *facts[1:]):
        box.put(message)
    taken = [box.take() for _ in range(5)]
    assert [found[0] for found in taken if found] == [
        facts[0], samples[4], BackendChanged(fake.backends["native"]), *facts[1:]
    ]  # fmt: skip
    assert [found[1] for found in taken if found] == [4, 0, 0, 0, 0]
    box.close()
    assert box.take() is None


def test_a_mailbox_that_nobody_empties_drops_the_oldest() -> None:
    box = Mailbox()
    facts = [EventRecorded(Event(float(i), "note", f"fact {i}")) for i in range(1_200)]
    for fact in facts:
        box.put(fact)
    assert box.take() == (facts[200], 200)


def test_a_mailbox_that_stays_empty_says_so() -> None:
    with pytest.raises(TimeoutError):
        Mailbox().take(0.0)
