"""The pipe between supervisor and child: an order, commands, and its end as a death notice."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.errors import ProtocolError
from edge_runtime.service.lifeline import Lifeline, die_with_supervisor, read_lines, say, take_order

PATIENCE_S = 60


@pytest.fixture
def signals() -> Iterator[None]:
    """`take_order` changes what the process does with them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_the_first_line_is_the_order_and_the_rest_are_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"name": "w"}\n{"event": "stop"}\nnonsense\n[1]\n{"event": "go"}\n'))
    assert take_order() == {"name": "w"}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    news = threading.Semaphore(0)
    line = Lifeline(news.release)
    line.start()
    assert line.gone.wait(PATIENCE_S)
    assert line.commands() == [{"event": "stop"}, {"event": "go"}]
    assert line.commands() == []
    for _ in range(3):  # two commands and the end
        assert news.acquire(timeout=PATIENCE_S)


@pytest.mark.usefixtures("signals")
def test_a_child_that_is_started_by_hand_says_who_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(ProtocolError, match="started by `takt serve`"):
        take_order()


def test_what_is_said_is_one_line_of_json_each(capsys: pytest.CaptureFixture[str]) -> None:
    say("want", workers=[{"name": "a\nb"}])
    say("alive")
    assert [json.loads(one) for one in capsys.readouterr().out.splitlines()] == [
        {"event": "want", "workers": [{"name": "a\nb"}]},
        {"event": "alive"},
    ]


def test_saying_something_to_a_supervisor_that_is_gone_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        say("alive")
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            pipe.close()


def test_lines_that_are_no_object_are_dropped() -> None:
    taken: list[dict[str, Any]] = []
    read_lines(io.StringIO('\n{}\n{"a": 1}\nnull\n"x"\n{"a": \n{"b": 2}'), taken.append)
    assert taken == [{}, {"a": 1}, {"b": 2}]


def test_a_stream_that_is_closed_under_the_reader_is_its_end() -> None:
    stream = io.StringIO('{"a": 1}\n{"b": 2}\n')
    taken: list[dict[str, Any]] = []

    def take(value: dict[str, Any]) -> None:
        taken.append(value)
        stream.close()

    read_lines(stream, take)
    assert taken == [{"a": 1}]


def test_a_child_leaves_at_once_when_its_supervisor_is_gone() -> None:
    code = f"from edge_runtime.service.lifeline import {die_with_supervisor.__name__} as f; f(); print('up', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            assert child.stdout.readline() == b"up\n"
            child.stdin.close()
            assert child.wait(PATIENCE_S) == 0
        finally:
            child.kill()
