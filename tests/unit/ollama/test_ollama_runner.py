"""Which processes count as the runner's."""

from __future__ import annotations

import os
import socket

import pytest

from embedctl.backends.ollama.runner import RESCAN_SECONDS, PsutilTable, RunnerFinder, Sighting
from tests.support.fake_processes import FakeProcesses

BLOB = "/usr/share/ollama/models/blobs/sha256-daec91ff"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def table() -> FakeProcesses:
    table = FakeProcesses()
    table.add(1, 0, "systemd")
    table.add(50, 1, "bash")
    return table


def test_the_runner_is_the_child_of_who_listens(table: FakeProcesses) -> None:
    table.add(100, 1, "python3")
    table.add(200, 100, "python3")
    table.add(201, 200, "python3")
    table.listeners[11434] = 100
    assert RunnerFinder(11434, table).find(None).pids == {200, 201}


def test_the_server_itself_does_not_count(table: FakeProcesses) -> None:
    table.add(100, 1, "ollama", "ollama", "serve")
    table.listeners[11434] = 100
    assert RunnerFinder(11434, table).find(BLOB).pids == frozenset()


def test_a_runner_is_found_by_name_when_the_listener_cannot_be_seen(table: FakeProcesses) -> None:
    table.add(100, 1, "ollama", "ollama", "serve")
    table.add(200, 100, "llama-server", "llama-server", "--model", BLOB)
    assert RunnerFinder(11434, table).find(BLOB).pids == {200}


def test_a_runner_of_an_older_server_is_found_by_its_command(table: FakeProcesses) -> None:
    table.add(100, 1, "ollama", "ollama", "serve")
    table.add(200, 100, "ollama", "ollama", "runner", "--model", BLOB)
    table.add(201, 50, "ollama", "ollama", "list")
    assert RunnerFinder(11434, table).find(BLOB).pids == {200}


def test_a_listener_that_only_forwards_to_a_container_is_not_the_end_of_the_search(
    table: FakeProcesses,
) -> None:
    table.add(90, 1, "docker-proxy")
    table.add(200, 100, "llama-server", "llama-server", "--model", BLOB)
    table.listeners[11434] = 90
    assert RunnerFinder(11434, table).find(BLOB).pids == {200}


def test_of_several_runners_the_one_with_our_model_counts(table: FakeProcesses) -> None:
    table.add(100, 1, "ollama", "ollama", "serve")
    table.add(200, 100, "llama-server", "llama-server", "--model", "/blobs/sha256-other")
    table.add(201, 100, "llama-server", "llama-server", "--model", "/in/a/container/blobs/sha256-daec91ff")
    table.listeners[11434] = 100
    sighting = RunnerFinder(11434, table).find(BLOB)
    assert (sighting.pids, sighting.note) == ({201}, "")


def test_the_runner_of_another_model_is_not_taken_for_ours_because_it_is_the_only_one(
    table: FakeProcesses,
) -> None:
    table.add(100, 1, "ollama", "ollama", "serve")
    table.add(200, 100, "llama-server", "llama-server", "--model", "/blobs/sha256-other")
    table.listeners[11434] = 100
    assert RunnerFinder(11434, table).find(BLOB) == Sighting()


def test_several_runners_that_cannot_be_told_apart_all_count_and_it_is_said(table: FakeProcesses) -> None:
    table.add(200, 1, "llama-server")
    table.add(201, 1, "llama-server")
    sighting = RunnerFinder(11434, table).find(BLOB)
    assert sighting.pids == {200, 201}
    assert "cannot be told apart" in sighting.note


def test_a_runner_that_lives_costs_no_look_through_all_processes(table: FakeProcesses) -> None:
    table.add(200, 1, "llama-server")
    finder = RunnerFinder(11434, table)
    for _ in range(10):
        assert finder.find(BLOB).pids == {200}
    assert table.scans == 1


def test_while_there_is_no_runner_looks_are_spaced(table: FakeProcesses) -> None:
    clock = Clock()
    finder = RunnerFinder(11434, table, clock)
    finder.find(BLOB)
    table.add(200, 1, "llama-server")
    clock.now = RESCAN_SECONDS / 2
    assert finder.find(BLOB).pids == frozenset()
    clock.now = RESCAN_SECONDS
    assert finder.find(BLOB).pids == {200}
    assert table.scans == 2


def test_a_new_runner_is_found_after_the_old_one_ended(table: FakeProcesses) -> None:
    clock = Clock()
    table.add(200, 1, "llama-server")
    finder = RunnerFinder(11434, table, clock)
    assert finder.find(BLOB).pids == {200}
    clock.now = 100.0
    table.end(200)
    table.add(300, 1, "llama-server")
    assert finder.find(BLOB).pids == {300}


def test_an_ended_runner_is_dropped_even_between_looks(table: FakeProcesses) -> None:
    table.add(200, 1, "llama-server")
    finder = RunnerFinder(11434, table, Clock())
    finder.find(BLOB)
    table.end(200)
    assert finder.find(BLOB).pids == frozenset()


def test_forgetting_makes_the_next_question_look(table: FakeProcesses) -> None:
    finder = RunnerFinder(11434, table, Clock())
    finder.find(BLOB)
    finder.forget()
    table.add(200, 1, "llama-server")
    assert finder.find(BLOB).pids == {200}


def test_psutil_sees_this_process_and_what_it_listens_on() -> None:
    table = PsutilTable()
    row = next(row for row in table.rows() if row.pid == os.getpid())
    assert row.parent == os.getppid()
    assert table.alive(row)
    assert "python" in table.command_line(row.pid)[0]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert table.listener(listening.getsockname()[1]) == os.getpid()
