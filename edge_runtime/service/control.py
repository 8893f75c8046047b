"""Owns the control socket: status, and the commands that change which bundle runs; each one leaves a line in the audit log."""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import JsonValue

from edge_runtime.errors import ConfigError, ProtocolError
from edge_runtime.protocol.messages import Reply, Request
from edge_runtime.protocol.wire import Message, encode
from edge_runtime.service import lifeline
from edge_runtime.service.camera_seat import CameraSeat
from edge_runtime.service.operations import Activate, Audit, Outcome, ReadAudit
from edge_runtime.service.port import Port
from edge_runtime.service.report import report
from edge_runtime.service.store import BundleFacts, stored

if TYPE_CHECKING:
    from edge_runtime.service.broker import Broker

_QUIET = {"status", "audit"}  # they change nothing
_COMMITS = 1000
_AUDIT_ROWS = 100  # with details of at most `_AUDIT_DETAIL` characters they fit into a header
_AUDIT_DETAIL = 300

_OVERTAKEN = "another change came first: ask for the status, then again"
_UNWRITTEN = (
    "the journal did not take it, and after a restart the bundle before would run; see to the disk and change again"
)

Said = tuple[str, JsonValue]  # the reply's detail and result

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Loading:
    """A request that is carried out as soon as bundles are loaded, tested and warm."""

    route: bytes
    request: Request
    digests: frozenset[str]
    then: Callable[[], Said | None]


class Control:
    """Answers requests; a request that has to wait for the supervisor or the disk is answered later."""

    def __init__(self, port: Port, broker: "Broker") -> None:
        """Take requests for a broker.

        Args:
            port: the control socket.
            broker: whom they are about.
        """
        self.commit_ms: deque[float] = deque(maxlen=_COMMITS)
        self._port = port
        self._broker = broker
        self._tickets = itertools.count(1)
        self._staging: dict[int, tuple[bytes, Request, list[CameraSeat]]] = {}
        self._loading: list[Loading] = []
        self._reading: dict[int, tuple[bytes, Request]] = {}
        self._switching: dict[
            int, tuple[Activate, bytes, Request, Said]
        ] = {}  # by id of what the journal must take first

    def on_message(self, route: bytes, message: Message, _: int) -> None:
        """A request came."""
        request = message.header
        if not isinstance(request, Request):
            return
        self._carry_out(route, request, lambda: self._do(route, request))

    def on_staged(self, said: dict[str, Any]) -> None:
        """The supervisor has put a bundle into the store, or could not."""
        route, request, seats = self._staging.pop(int(said["ticket"]), (b"", None, []))
        if request is None:
            return
        if "error" in said:
            self._reply(route, request, ok=False, detail=said["error"])
            return
        facts = BundleFacts.from_json(said["facts"])
        for seat in seats:
            seat.choice.staged, seat.choice.staging_failed = facts, None
        self._broker.flow.want()
        done = f"{facts.product} {facts.digest[:12]} is ready to be activated", facts.digest
        self._loading.append(Loading(route, request, frozenset((facts.digest,)), lambda: done))
        self.tick()

    def tick(self) -> None:
        """Carry out what waited for a bundle that is loaded, tested and warm by now."""
        for waiting in tuple(self._loading):
            if not all(self._broker.flow.wants(digest) for digest in waiting.digests):
                self._loading.remove(waiting)
                self._reply(waiting.route, waiting.request, ok=False, detail=_OVERTAKEN)
            elif all(self._broker.flow.lanes.ready(digest) for digest in waiting.digests):
                self._loading.remove(waiting)
                self._carry_out(waiting.route, waiting.request, waiting.then)

    def on_worker_failed(self, digest: str, detail: str) -> None:
        """A worker could not load its bundle: a staged one is dropped, an active one is tried again."""
        for waiting in tuple(self._loading):
            if digest in waiting.digests:
                self._loading.remove(waiting)
                self._reply(waiting.route, waiting.request, ok=False, detail=detail)
                for seat in self._broker.flow.cameras.seats.values():
                    seat.choice.returning = False
        self._broker.flow.failures[digest] = detail
        seats = self._broker.flow.cameras.seats.values()
        if not any(digest == kept.digest for seat in seats for kept in seat.choice.running):
            # a whole file may have the same manifest, and must not be taken for this one
            stored(self._broker.run_dir.bundles, digest).unlink(missing_ok=True)
        for seat in seats:
            choice = seat.choice
            if choice.staged is not None and choice.staged.digest == digest:
                choice.staged, choice.staging_failed = None, detail
                log.error("staging_failed", camera=seat.config.name, digest=digest, detail=detail)
        self._broker.flow.want()

    def on_outcome(self, outcome: Outcome) -> None:
        """The journal has read the audit log, or knows which bundle is active: only now a kill cannot undo the switch."""
        switched = self._switching.pop(id(outcome.operation), None)
        if switched is not None:
            _, route, request, said = switched
            if outcome.error is None:
                self._reply(route, request, ok=True, detail=said[0], result=said[1])
            else:
                self._reply(route, request, ok=False, detail=f"{said[0]}, but {_UNWRITTEN}: {outcome.error}")
            return
        asked = self._reading.pop(id(outcome.operation), None)
        if asked is None:
            return
        route, request = asked
        if outcome.error is not None:
            self._reply(route, request, ok=False, detail=outcome.error)
            return
        rows = outcome.value if isinstance(outcome.value, tuple) else ()
        listed: list[JsonValue] = [
            {
                "utc": row.utc,
                "actor": row.actor,
                "command": row.command,
                "detail": row.detail[:_AUDIT_DETAIL],
                "ok": row.ok,
            }
            for row in rows
        ]
        self._reply(route, request, ok=True, detail="", result=listed)

    def note_commit(self, commit_ms: float) -> None:
        """For status."""
        self.commit_ms.append(commit_ms)

    def _carry_out(self, route: bytes, request: Request, act: Callable[[], Said | None]) -> None:
        try:
            said = act()
        except ConfigError as error:
            self._reply(route, request, ok=False, detail=str(error))
        else:
            if said is not None:
                self._reply(route, request, ok=True, detail=said[0], result=said[1])

    def _do(  # noqa: PLR0911 - one for each command
        self, route: bytes, request: Request
    ) -> Said | None:
        """What to reply; None where it comes later."""
        match request.command:
            case "status":
                return "", report(self._broker, self.commit_ms)
            case "stage":
                self._stage(route, request)
                return None
            case "activate":
                self._activate(route, request)
                return None
            case "rollback":
                return self._roll_back(route, request)
            case "resync":
                return self._resync(request)
            case "halt" | "resume":
                self._broker.flow.station.halted = request.command == "halt"
                return ("halted" if self._broker.flow.station.halted else "resumed"), None
            case "audit":
                limit = request.arguments.get("limit", 20)
                if not isinstance(limit, int) or not 1 <= limit <= _AUDIT_ROWS:
                    message = f"limit is {limit!r}, expected 1 to {_AUDIT_ROWS}"
                    raise ConfigError(message)
                operation = ReadAudit(limit=limit)
                self._reading[id(operation)] = (route, request)
                self._broker.writer.submit(operation)
                return None
        message = (
            f"no command {request.command!r}: there are status, stage, activate, rollback, resync, halt, resume, audit"
        )
        raise ConfigError(message)

    def _stage(self, route: bytes, request: Request) -> None:
        path = request.arguments.get("bundle")
        if not isinstance(path, str) or not Path(path).is_absolute():
            message = f"bundle is {path!r}, expected an absolute path on the service's host"
            raise ConfigError(message)
        ticket = next(self._tickets)
        self._staging[ticket] = (route, request, self._seats(request))
        lifeline.say("stage", ticket=ticket, path=path)

    def _activate(self, route: bytes, request: Request) -> None:
        seats, digests = self._seats(request), []
        for seat in seats:
            staged = seat.choice.staged
            if staged is None:
                failed = seat.choice.staging_failed
                message = f"camera {seat.config.name} has no staged bundle{f' (the last one failed: {failed})' if failed else ''}"
                raise ConfigError(message)
            if not self._broker.flow.lanes.ready(staged.digest):
                message = f"bundle {staged.digest[:12]} of camera {seat.config.name} is still being loaded and tested: try again"
                raise ConfigError(message)
            digests.append(staged.digest)
        said = f"active on {', '.join(seat.config.name for seat in seats)}", digests[0]
        self._switch(seats, lambda seat: seat.choice.activate(), route, request, said)

    def _roll_back(self, route: bytes, request: Request) -> Said | None:
        """Switch at once where the bundles before are loaded; else load them first: no frame is lost meanwhile."""
        back: list[tuple[CameraSeat, BundleFacts]] = []
        for seat in self._seats(request):
            if seat.choice.previous is None:
                message = f"camera {seat.config.name} has no bundle to go back to"
                raise ConfigError(message)
            back.append((seat, seat.choice.previous))

        def switch() -> None:
            if any(seat.choice.previous is not facts for seat, facts in back):
                raise ConfigError(_OVERTAKEN)
            said = f"rolled back on {', '.join(seat.config.name for seat, _ in back)}", back[0][1].digest
            self._switch([seat for seat, _ in back], lambda seat: seat.choice.roll_back(), route, request, said)

        for seat, _ in back:
            seat.choice.returning = True
        self._broker.flow.want()
        self._loading.append(Loading(route, request, frozenset(facts.digest for _, facts in back), switch))
        self.tick()
        return None

    def _switch(
        self,
        seats: Sequence[CameraSeat],
        change: Callable[[CameraSeat], None],
        route: bytes,
        request: Request,
        said: Said,
    ) -> None:
        """Change the bundle of some cameras, and reply when the journal knows: commits are in order, the last is enough."""
        for seat in seats:
            before = seat.choice.active
            change(seat)
            noted = self._switched(seat, before, request)
        self._switching[id(noted)] = (noted, route, request, said)

    def _switched(self, seat: CameraSeat, before: BundleFacts, request: Request) -> Activate:
        """The next frame is inspected with another bundle; what is in work stays with its own."""
        choice = seat.choice
        log.info("bundle_active", camera=seat.config.name, digest=choice.active.digest, before=before.digest)
        if choice.active.frame != before.frame:
            self._broker.flow.cameras.lay_out(seat)
        self._broker.flow.want()
        noted = Activate(
            camera=seat.config.name,
            configured=choice.configured.digest,
            digest=choice.active.digest,
            previous=None if choice.previous is None else choice.previous.digest,
            actor=request.actor,
        )
        self._broker.writer.submit(noted)
        return noted

    def _resync(self, request: Request) -> Said:
        done = [seat.config.name for seat in self._seats(request) if self._broker.flow.cameras.resync(seat)]
        if not done:
            message = "no camera here is triggered by hardware: there is nothing to count anew"
            raise ConfigError(message)
        return f"counting anew on {', '.join(done)}", None

    def _seats(self, request: Request) -> list[CameraSeat]:
        seats = self._broker.flow.cameras.seats
        name = request.arguments.get("camera")
        if name is None:
            return list(seats.values())
        if not isinstance(name, str) or name not in seats:
            message = f"line.toml has no camera {name!r}, it has {', '.join(seats)}"
            raise ConfigError(message)
        return [seats[name]]

    def _reply(self, route: bytes, request: Request, *, ok: bool, detail: str, result: JsonValue = None) -> None:
        self._port.send(route, _fitted(Reply(id=request.id, ok=ok, detail=detail[:2000], result=result)))
        if request.command not in _QUIET:
            said = f"{_said(request.arguments)} {detail}".strip()
            log.info("control", actor=request.actor, command=request.command, ok=ok, detail=said)
            self._broker.writer.submit(Audit(actor=request.actor, command=request.command, detail=said[:2000], ok=ok))


def _fitted(reply: Reply) -> Reply:
    """The reply, or one that says that its result is too large for a message."""
    try:
        encode(reply)
    except ProtocolError as error:
        return reply.model_copy(update={"ok": False, "detail": f"{error}: ask for less", "result": None})
    return reply


def _said(arguments: dict[str, JsonValue]) -> str:
    return " ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
