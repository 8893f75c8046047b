"""Headers of every message type: arbitrary ones for properties, and one fixed example of each for the golden bytes."""

from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import JsonValue

from edge_runtime.decision import Verdict
from edge_runtime.imaging.frames import PixelFormat
from edge_runtime.protocol import messages as m

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def headers(model: type[m.Header]) -> st.SearchStrategy[m.Header]:
    """Every header of a type that its model allows, but for size."""
    fields = {name: _values(field.annotation, field.metadata) for name, field in model.model_fields.items()}
    return st.builds(model, **fields)


def _values(kind: Any, limits: list[Any]) -> st.SearchStrategy[Any]:  # noqa: ANN401, PLR0911 - one for each kind
    if kind is JsonValue:
        return json_values
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return _values(inner, [limit for field in more for limit in field.metadata])
    if get_origin(kind) in {Union, UnionType}:
        return st.one_of([_values(one, limits) for one in get_args(kind)])
    if get_origin(kind) is tuple:
        return st.lists(_values(get_args(kind)[0], []), max_size=2).map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(text, _values(get_args(kind)[1], []), max_size=3)
    if kind in {int, float}:
        low, high = (next((getattr(one, name) for one in limits if hasattr(one, name)), None) for name in ("ge", "le"))
        return st.integers(low, high) if kind is int else st.floats(low, high, allow_nan=False, allow_infinity=False)
    if kind is str:
        pattern = next((one.pattern for one in limits if getattr(one, "pattern", None)), None)
        longest = next((one.max_length for one in limits if hasattr(one, "max_length")), 2000)
        found = text if pattern is None else st.from_regex(pattern, fullmatch=True)
        return found.filter(lambda value: len(value) <= longest)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    return headers(kind) if isinstance(kind, type) and issubclass(kind, m.Header) else st.from_type(kind)


FRAME = m.FrameSpec(width=96, height=64, pixel_format=PixelFormat.MONO8)
_INSTANCE = "0123456789abcdef" * 2
_DIGEST = "ab" * 32
_REGION = m.ListedRegion(name="all", x=1, y=2, width=3, height=4, area_px=10, peak=1.5)
_LIVE: dict[str, Any] = {"station": "press-4", "epoch": 7, "heartbeat_ms": 500, "lapse_ms": 2000}
_SCORED: dict[str, Any] = {
    "verdict": Verdict.REJECT,
    "reason": None,
    "detail": "",
    "region": "all",
    "score": 0.75,
    "threshold": 0.5,
    "score_normalized": 150.0,
    "regions": (_REGION,),
    "regions_left_out": 0,
    "complete": True,
    "bundle": _DIGEST,
    "artefact": "onnx-f32",
}
_ANSWER: dict[str, Any] = {
    **_SCORED,
    "station": "press-4",
    "client": "plc",
    "epoch": 7,
    "trigger_id": "t-1",
    "part_id": "part 1",
    "camera": "top",
    "counter": 12,
    "label": "frame.png",
    "deadline_ms": 1000,
    "decided_utc": "2026-01-01T00:00:00.000+00:00",
    "timings_ms": m.TimingsMs(
        frame=1.0, queue=0.5, preprocess=2.0, infer=30.25, postprocess=4.0, journal=3.5, total=41.25
    ),
    "seq": 99,
    "journaled": True,
}
EXAMPLES: tuple[m.Header, ...] = (
    m.Heartbeat(epoch=7, state=m.State.READY, reason="waiting for triggers"),
    m.Refused(code=m.Code.BAD_MESSAGE, detail="Trigger: camera: Field required", trigger_id="t-1", epoch=7),
    m.ClientHello(name="plc", instance=_INSTANCE, follow=("belt",)),
    m.ClientWelcome(
        **_LIVE,
        state=m.State.READY,
        cameras=(
            m.CameraFacts(
                name="top", trigger=m.TriggerMode.SOFTWARE, deadline_ms=1000, takes_frames=False, frame=FRAME
            ),
        ),
    ),
    m.Trigger(epoch=7, trigger_id="t-1", camera="top", part_id="Größe 1", deadline_ms=250, frame=FRAME),
    m.Queued(epoch=7, trigger_id="t-1"),
    m.Answer(**_ANSWER),
    m.CameraHello(
        name="top", instance=_INSTANCE, trigger=m.TriggerMode.HARDWARE, transport=m.Transport.MEMORY, pid=4711
    ),
    m.CameraWelcome(
        **_LIVE, frame=FRAME, ring=m.RingSpec(path="/run/takt/frames/top-7-1.ring", slots=4, slot_bytes=8192)
    ),
    m.Credit(grants=(m.SlotGrant(slot=0, generation=1), m.SlotGrant(slot=1, generation=2)), messages=0),
    m.Grab(epoch=7, trigger_id="plc/t-1", part_id="part 1"),
    m.Frame(epoch=7, trigger_id="plc/t-1", counter=12, frame=FRAME, slot=0, generation=1, label="frame.png"),
    m.CameraState(ok=False, detail="no signal: see the cable", exposures=12, dropped=1),
    m.ConsumerHello(name="mes", instance=_INSTANCE, last_acked=98),
    m.ConsumerWelcome(**_LIVE, last_acked=98, newest=99, window=256),
    m.Record(**{**_ANSWER, "replayed": True}),
    m.Ack(seq=99),
    m.Gap(first=1, last=42, detail="removed after `journal_days`"),
    m.Request(id=_INSTANCE, command="stage", arguments={"camera": None, "bundle": "/srv/part.takt"}, actor="ann"),
    m.Reply(id=_INSTANCE, ok=True, detail="ready to be activated", result={"digest": _DIGEST, "n": [1, 2.5, None]}),
    m.WorkerHello(
        token="secret",  # noqa: S106 - of an example
        worker="ab12-0",
        pid=4712,
        digest=_DIGEST,
        artefact="onnx-f32",
        product="flange",
        inspected=5,
    ),
    m.Inspect(
        job=3,
        path="/run/takt/frames/top-7-1.ring",
        slot=0,
        slot_bytes=8192,
        generation=1,
        frame=FRAME,
        until_ns=81_000_000_000,
        early_reject=False,
    ),
    m.Result(job=3, **_SCORED, preprocess_ms=2.0, infer_ms=30.25, postprocess_ms=4.0),
)
