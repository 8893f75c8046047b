"""The real broker in a thread of the test, with its sockets and its journal, and a test in the supervisor's place."""

import gc
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from support.headers import FRAME
from support.line import free_port, until
from support.sockets import DealerPeer, instance

from edge_runtime.protocol.messages import Reply, Request, WorkerHello
from edge_runtime.service import lifeline
from edge_runtime.service.broker import Broker
from edge_runtime.service.config import LineConfig
from edge_runtime.service.store import BundleFacts

TOKEN = "token-of-the-test"  # noqa: S105 - of no use elsewhere


class Supervising:
    """What the broker knows of its supervisor: commands, and whether it is gone."""

    def __init__(self) -> None:
        """Nothing was commanded yet."""
        self.gone = threading.Event()
        self.said: list[dict[str, Any]] = []
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def commands(self) -> list[dict[str, Any]]:
        """What the broker has not fetched yet."""
        return [self._commands.get() for _ in range(self._commands.qsize())]

    def command(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Say something to the broker."""
        self._commands.put({"event": event, **fields})

    def say(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        """What the broker says comes in here."""
        if event != "alive":
            self.said.append({"event": event, **fields})

    def heard(self, event: str) -> list[dict[str, Any]]:
        """All that the broker said of a kind."""
        return [one for one in tuple(self.said) if one["event"] == event]


class BrokerThread:
    """A running broker and connections to it."""

    def __init__(
        self, folder: Path, cameras: list[dict[str, Any]], supervising: Supervising, settings: dict[str, Any]
    ) -> None:
        """Bind, then start the loop."""
        self.supervising = supervising
        self.facts = BundleFacts(path=folder / "a.takt", digest="a" * 64, product="p", frame=FRAME)
        tables = [{"bundle": str(folder / "a.takt"), "source": "client", **camera} for camera in cameras]
        self.config = LineConfig.model_validate(
            {"station": "press-4", "run_dir": folder / "run", "endpoint": f"tcp://127.0.0.1:{free_port()}"}
            | settings
            | {"camera": tuple({**table, "bundle": Path(table["bundle"])} for table in tables)}
        )
        for name in ("frames", "bundles"):
            (self.config.run_dir / name).mkdir(parents=True)
        order = {
            "supervisor": 1,
            "token": TOKEN,
            "bundles": {table["name"]: self.facts.as_json() for table in tables},
        }
        self._awake, self._alarm = socket.socketpair()
        self._awake.settimeout(0)
        self._alarm.settimeout(0)
        self.broker = Broker(self.config, order, self._awake, self._wake)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peers: list[DealerPeer] = []
        self.control = self.peer(self.config.endpoints.control)
        self._thread = threading.Thread(target=self._run, name="broker")
        self._thread.start()

    def _wake(self) -> None:
        self._alarm.send(b"!")

    def _run(self) -> None:
        try:
            self.broker.run(self.supervising)  # type: ignore[arg-type]
        finally:
            self.broker.close()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def peer(self, address: str) -> DealerPeer:
        """A connection."""
        self.peers.append(DealerPeer(self.context, address))
        return self.peers[-1]

    def ask(self, command: str, **arguments: Any) -> Reply:  # noqa: ANN401
        """A request and its reply."""
        request = Request(id=instance(), command=command, arguments=arguments, actor="test")
        self.control.say(request)
        reply = self.control.hear(Reply)
        assert reply.id == request.id
        return reply

    def status(self) -> dict[str, Any]:
        """The result of `status`."""
        result = self.ask("status").result
        assert isinstance(result, dict)
        return result

    def worker(self, digest: str = "a" * 64) -> DealerPeer:
        """A worker that is ready, as soon as the broker wants one."""
        name = f"{digest[:12]}-0"
        until(lambda: any(name in str(one) for one in self.supervising.heard("want")), "the worker to be wanted")
        peer = self.peer(self.config.endpoints.workers)
        peer.say(WorkerHello(token=TOKEN, worker=name, pid=1, digest=digest, artefact="f32", product="p", inspected=0))
        until(lambda: any(one["name"] == name for one in self.status()["workers"]), "the worker to be known")
        return peer

    def stop(self) -> None:
        """Stop the loop and leave nothing behind."""
        self.supervising.command("stop")
        self._thread.join(30)
        gc.unfreeze()  # the broker freezes what a process of its own would keep
        for peer in self.peers:
            peer.close()
        self.context.term()
        self._awake.close()
        self._alarm.close()
        assert not self._thread.is_alive()


@contextmanager
def broker_thread(
    folder: Path,
    *cameras: dict[str, Any],
    **settings: Any,  # noqa: ANN401 - as line.toml has them
) -> Iterator[BrokerThread]:
    """A broker for the length of a test; what it tells the supervisor is kept."""
    supervising = Supervising()
    before, lifeline.say = lifeline.say, supervising.say
    try:
        running = BrokerThread(folder, list(cameras), supervising, settings)
        try:
            yield running
        finally:
            running.stop()
    finally:
        lifeline.say = before
