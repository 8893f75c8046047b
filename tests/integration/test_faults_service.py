"""Under load and SIGKILL at random instants the service keeps its promises; `make faults` is the long form of this."""

import os
from pathlib import Path

import pytest
from faults.campaign import KINDS, run_campaign

_ENOUGH = 50  # good verdicts, without which nothing was shown


@pytest.mark.slow
@pytest.mark.timeout(900)  # about a minute on a quiet machine
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_no_kill_of_any_process_loses_doubles_or_contradicts_an_answer(tmp_path: Path, stub: Path) -> None:
    summary = run_campaign(tmp_path, stub, kills=3, seed=11)
    assert summary.violations == [], summary.text
    assert summary.kills == dict.fromkeys(KINDS, 3), summary.text
    assert min(summary.answers["ACCEPT"], summary.answers["REJECT"]) >= _ENOUGH, summary.text
