"""How the process of a trial may end."""

import subprocess
from subprocess import CompletedProcess

import pytest

from edge_runtime.errors import EngineError
from edge_runtime.preflight import child
from edge_runtime.preflight.measure import MeasureOrder

ORDER = MeasureOrder(bundle="part.takt", artefact="openvino-f32", threads=1, count=1, period_ms=1.0)


def ends(monkeypatch: pytest.MonkeyPatch, code: int, err: str) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: CompletedProcess([], code, stdout="", stderr=err))


@pytest.mark.parametrize(
    ("code", "err"),
    [(-9, ""), (-6, "terminate called after throwing an instance of 'std::bad_alloc'"), (1, "MemoryError")],
)
def test_a_process_that_ends_for_want_of_memory_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, code: int, err: str
) -> None:
    ends(monkeypatch, code, err)
    assert child.measure(ORDER) is None


def test_any_other_end_is_an_error_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, -11, "something native broke")
    with pytest.raises(EngineError, match=r"ended with -11: something native broke"):
        child.measure(ORDER)
