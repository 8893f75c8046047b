"""Owns the processes of the service: starts them, starts them again, and brings them down in order.

It has no socket and does no inspection, so there is little that could break it; the broker decides which workers there
should be and says so, the supervisor makes it so.
"""

import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from edge_runtime.errors import ConfigError, TaktError
from edge_runtime.protocol.messages import Transport
from edge_runtime.service.config import CameraConfig, CameraFile, LineConfig, SourceKind
from edge_runtime.service.processes import Child, Event
from edge_runtime.service.run_dir import RunDir, durable
from edge_runtime.service.store import BundleFacts, adopt

_POLL_S = 0.2
_SILENT_S = 5.0  # a broker that says nothing for so long is stuck
_START_S = 60.0  # the same for one that starts: it checks the journal, and waits for addresses to become free
_BROKER_STOP_S = 6.0
_CHILD_STOP_S = 2.0
_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 5.0
_HEALTHY_S = 10.0  # a child that lived so long starts anew without delay

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Post:
    """A process that there should be."""

    kind: str
    name: str
    order: Callable[[], dict[str, Any]]
    child: Child | None = None
    digest: str = ""  # of a worker's bundle
    failure: str = ""  # what the child said before it ended
    backoff_s: float = _FIRST_BACKOFF_S
    start_at: float = 0.0
    started_at: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Keeps the posts filled until it is told to stop."""

    config: LineConfig
    bundles: dict[str, BundleFacts]
    pid: int
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    events: "queue.SimpleQueue[Event]" = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    posts: dict[str, Post] = field(default_factory=dict)
    heard_at: float = 0.0
    exit_code: int = 0

    def run(self) -> int:
        """Fill the posts, keep them filled, empty them; the exit code is 0 unless the broker cannot be started."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self.posts["broker"] = Post("broker", "broker", self._broker_order)
        for camera in self.config.camera:
            if camera.parsed_source.kind not in {SourceKind.PROCESS, SourceKind.CLIENT}:
                name = f"camera:{camera.name}"
                self.posts[name] = Post("camera", name, partial(_camera_order, self.config, camera))
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="store") as store:
            try:
                while not self.stop.is_set():
                    self._fill()
                    self._take(store, _POLL_S)
                    self._watch()
            finally:
                self._bring_down()
        return self.exit_code

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.stop.set()
        self.events.put(Event("signal", "", {"number": number}))

    def _fill(self) -> None:
        now = time.monotonic()
        for post in tuple(self.posts.values()):
            if post.child is None and now >= post.start_at:
                post.failure = ""
                post.child = Child.start(post.kind, post.name, post.order(), self.events)
                post.started_at = now
                if post.kind == "broker":
                    self.heard_at = now + _START_S - _SILENT_S
                log.info("started", child=post.name, child_pid=post.child.pid)

    def _take(self, store: ThreadPoolExecutor, within_s: float) -> None:
        """What the children said, one event at least where there is one within the time."""
        try:
            event = self.events.get(timeout=within_s)
        except queue.Empty:
            return
        while True:
            self._on_event(event, store)
            try:
                event = self.events.get_nowait()
            except queue.Empty:
                return

    def _on_event(self, event: Event, store: ThreadPoolExecutor) -> None:
        post = self.posts.get(event.child)
        if event.name == "failed" and post is not None:
            post.failure = str(event.fields.get("detail", ""))
        elif event.name == "gone" and post is not None and post.child is event.source:
            self._on_gone(post, int(event.fields["exit_code"]))
        elif event.child == "broker":
            self.heard_at = time.monotonic()
            if event.name == "want":
                self._want(event.fields["workers"])
            elif event.name == "kill":
                self._kill(str(event.fields["worker"]))
            elif event.name == "stage":
                store.submit(self._stage, int(event.fields["ticket"]), Path(event.fields["path"]))

    def _on_gone(self, post: Post, exit_code: int) -> None:
        lived = time.monotonic() - post.started_at
        pid = 0 if post.child is None else post.child.pid
        post.child = None
        post.backoff_s = _FIRST_BACKOFF_S if lived > _HEALTHY_S else min(_LAST_BACKOFF_S, post.backoff_s * 2)
        first = lived > _HEALTHY_S or (exit_code < 0 and not post.failure)  # killed: no reason to wait
        post.start_at = time.monotonic() + (0.0 if first else post.backoff_s)
        how = post.failure or (
            f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        )
        log.error("ended", child=post.name, child_pid=pid, exit_code=exit_code, detail=how)
        if post.kind == "worker":
            self._tell("worker_gone", worker=post.name, pid=pid, detail=how)
            if post.failure:
                self._tell("worker_failed", worker=post.name, digest=post.digest, detail=post.failure)
        elif post.kind == "camera":
            self._tell("camera_gone", camera=post.name.partition(":")[2], detail=how)
        elif post.failure:  # a broker that says why it cannot run will not run the next time either
            log.error("cannot_serve", detail=post.failure)
            self.exit_code = exit_code
            self.stop.set()

    def _want(self, workers: list[dict[str, Any]]) -> None:
        names = {worker["name"] for worker in workers}
        for name in [name for name, post in self.posts.items() if post.kind == "worker" and name not in names]:
            post = self.posts.pop(name)
            if post.child is not None:
                post.child.let_go()
        for worker in workers:
            if worker["name"] not in self.posts:
                facts = BundleFacts.from_json(worker)
                order = self._worker_order(worker["name"], facts)
                self.posts[worker["name"]] = Post("worker", worker["name"], partial(dict, order), digest=facts.digest)
        self._fill()

    def _kill(self, worker: str) -> None:
        post = self.posts.get(worker)
        if post is not None and post.child is not None:
            post.child.kill()

    def _stage(self, ticket: int, path: Path) -> None:
        """In a thread of its own: a copy of a large bundle must not hold up the rest."""
        try:
            facts = adopt(path, RunDir(self.config.run_dir).bundles)
        except (TaktError, OSError) as error:
            self._tell("staged", ticket=ticket, error=str(error))
        else:
            self._tell("staged", ticket=ticket, facts=facts.as_json())

    def _watch(self) -> None:
        broker = self.posts["broker"].child
        if broker is not None and time.monotonic() - self.heard_at > _SILENT_S:
            log.error("broker_stuck", child_pid=broker.pid)
            self.heard_at = time.monotonic()
            broker.kill()

    def _tell(self, event: str, **fields: object) -> None:
        broker = self.posts["broker"].child
        if broker is not None:
            broker.tell(event, **fields)

    def _bring_down(self) -> None:
        """Broker first: it answers what is open, for which it needs cameras and workers. Each step is bounded."""
        log.info("stopping")
        broker = self.posts["broker"].child
        if broker is not None:
            broker.tell("stop")
            broker.end(_BROKER_STOP_S)
        others = [post.child for post in self.posts.values() if post.kind != "broker" and post.child is not None]
        for child in others:
            child.let_go()
        give_up = time.monotonic() + _CHILD_STOP_S
        for child in others:
            child.end(max(0.0, give_up - time.monotonic()))
        log.info("stopped")

    def _broker_order(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump_json(),
            "token": self.token,
            "bundles": {name: facts.as_json() for name, facts in self.bundles.items()},
            "supervisor": self.pid,
        }

    def _worker_order(self, name: str, facts: BundleFacts) -> dict[str, Any]:
        return {
            "name": name,
            "token": self.token,
            "endpoint": self.config.endpoints.workers,
            "bundle": str(facts.path),
            "digest": facts.digest,
            "threads": self.config.threads,
            "graph": self.config.graph.value,
            "artefact": self.config.artefact,
            "cache_dir": str(RunDir(self.config.run_dir).cache),
        }


def _camera_order(config: LineConfig, camera: CameraConfig) -> dict[str, Any]:
    file = CameraFile(
        endpoint=config.endpoint,
        name=camera.name,
        source=camera.source,
        trigger=camera.trigger,
        transport=Transport.MEMORY,
        period_ms=camera.period_ms,
        pixel_format=camera.pixel_format,
    )
    return {"name": camera.name, "config": file.model_dump_json()}


def serve(config: LineConfig, pid: int) -> int:
    """Run the service until SIGTERM or SIGINT.

    Raises:
        ConfigError: the run folder cannot be used, or another service uses it.
        BundleError: a bundle cannot be read.
    """
    run_dir = RunDir(config.run_dir)
    run_dir.make()
    with run_dir.lock("service", wait_s=1.0):
        bundles = adopt_all(config, run_dir)
        if not durable():
            log.warning("not_durable", detail="commits do not wait for the disk: for benchmarks only")
        return Supervisor(config=config, bundles=bundles, pid=pid).run()


def adopt_all(config: LineConfig, run_dir: RunDir) -> dict[str, BundleFacts]:
    """Put every camera's bundle into the store.

    Raises:
        ConfigError: a bundle does not exist, or there is no room.
        BundleError: it is none.
    """
    for camera in config.camera:
        if not camera.bundle.is_file():
            message = f"camera {camera.name}: bundle: {camera.bundle} does not exist: build it, or correct the path"
            raise ConfigError(message)
    return {camera.name: adopt(camera.bundle, run_dir.bundles) for camera in config.camera}


__all__ = ["Supervisor", "adopt_all", "serve"]
