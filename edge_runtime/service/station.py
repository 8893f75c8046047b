"""Owns the station's state, in the terms of OPC 40100-1, and why it is what it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.decision import Reason
from edge_runtime.protocol.messages import State, TriggerMode


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraCondition:
    """What the state depends on, for one camera."""

    name: str
    trigger: TriggerMode
    worker: bool  # its bundle is loaded, tested and warm in a live worker
    loading: str  # what is known where it is not
    connected: bool
    source: bool  # the camera gives frames
    detail: str


@dataclass(slots=True)
class Station:
    """State and readiness."""

    halted: bool = False
    stopping: bool = False
    journal: str | None = None  # why the disk does not take answers
    been_ready: bool = False

    def state(  # noqa: PLR0911 - a ladder: the first rung that holds
        self, cameras: Sequence[CameraCondition], open_triggers: int
    ) -> tuple[State, str]:
        """The state, and a reason that a person understands."""
        if self.stopping or self.halted:
            return State.HALTED, "going down" if self.stopping else "halted by command: `takt control resume` goes on"
        if self.journal is not None:
            return State.ERROR, f"journal: {self.journal}"
        workers = [f"{camera.name}: {camera.loading}" for camera in cameras if not camera.worker]
        sources = [f"{camera.name}: {camera.detail}" for camera in cameras if not (camera.connected and camera.source)]
        if workers and self.been_ready:
            return State.ERROR, "; ".join(workers)
        if workers:
            return State.PREOPERATIONAL, "; ".join(workers)
        if sources:
            return State.ERROR if self.been_ready else State.INITIALIZED, "; ".join(sources)
        self.been_ready = True
        if any(camera.trigger is TriggerMode.STREAM for camera in cameras):
            return State.CONTINUOUS_EXECUTION, "inspecting every frame of a stream"
        if open_triggers:
            return State.SINGLE_EXECUTION, f"{open_triggers} trigger(s) in work"
        return State.READY, "waiting for triggers"

    def refusal(  # noqa: PLR0911 - the same
        self, camera: CameraCondition
    ) -> tuple[Reason, str] | None:
        """Why a trigger of a camera cannot be inspected now; None where it can."""
        if self.stopping:
            return Reason.NOT_READY, "the service is going down"
        if self.halted:
            return Reason.NOT_READY, "halted by command"
        if self.journal is not None:
            return Reason.NOT_READY, f"the journal cannot be written: {self.journal}"
        if not camera.worker:
            return Reason.NOT_READY, f"camera {camera.name}: {camera.loading}"
        if not camera.connected:
            return Reason.NOT_READY, f"camera {camera.name}: {camera.detail}"
        if not camera.source:
            return Reason.NO_FRAME, f"camera {camera.name}: {camera.detail}"
        return None
