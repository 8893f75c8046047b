"""What a campaign came to, in figures."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from faults.evidence import Evidence, Line
from faults.verify import KINDS, Findings, Violation

_GOOD = {"ACCEPT", "REJECT"}
_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Figures, what was violated, and both as a page to read."""

    kills: Counter[str]
    triggers: int
    answers: Counter[str]  # by verdict, with the reason of an ERROR
    recovery_s: dict[str, list[float]]  # by kind, of kills that came while all was well
    violations: list[Violation]
    text: str


def summarise(evidence: Evidence, findings: Findings) -> Summary:
    """Count."""
    kills = [line for line in evidence.campaign if line["did"] == "kill"]
    sent = [line for lines in evidence.clients.values() for line in lines if line["did"] == "sent"]
    recovery = _recovery(evidence, kills)
    counted, answers = Counter(line["kind"] for line in kills), _answers(evidence)
    stalls = sum(line["did"] == "stall" for line in evidence.campaign)
    page = [
        f"triggers {len(sent)}, journal records {len(evidence.rows)}, epochs {len(_epochs(evidence))}, stalls of the machine {stalls}",
        "",
        f"{'killed':<24}{'times':>6}{'calm':>6}{'p50 s':>8}{'max s':>8}   (from SIGKILL to all well again)",
        *(_times(kind, counted[kind], recovery.get(kind, ())) for kind in counted),
        _times("worker to good verdict", counted["worker"], recovery.get("good verdict", ())),
        "",
        "answers: " + _list(answers),
        "errors while something was down: " + _list(findings.excused),
        f"undisturbed answers {findings.calm}",
        "",
        *(f"{kind:<14}{sum(violation.kind == kind for violation in findings.violations):>6}" for kind in KINDS),
        *(f"  {violation.kind}: {violation.what[:1000]}" for violation in findings.violations[:_SHOWN]),
        f"violations: {len(findings.violations)}",
    ]
    return Summary(
        kills=counted,
        triggers=len(sent),
        answers=answers,
        recovery_s=recovery,
        violations=findings.violations,
        text="\n".join(page) + "\n",
    )


def _recovery(evidence: Evidence, kills: list[Line]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for index, kill in enumerate(kills):
        following = kills[index + 1]["at"] if index + 1 < len(kills) else 2**62
        recovered = evidence.recovered_ns(kill)
        if kill["calm"] and recovered < following:
            found.setdefault(kill["kind"], []).append((recovered - kill["at"]) / 1e9)
            good = _good_verdict_ns(evidence, kill["at"])
            if kill["kind"] == "worker" and good is not None:
                found.setdefault("good verdict", []).append((good - kill["at"]) / 1e9)
    return found


def _good_verdict_ns(evidence: Evidence, kill_ns: int) -> int | None:
    """When the first part that was triggered after a kill had a verdict."""
    times = []
    for lines in evidence.clients.values():
        later = {line["trigger"]["trigger_id"] for line in lines if line["did"] == "sent" and line["at"] > kill_ns}
        answers = (line for line in lines if line["did"] == "answer" and line["answer"]["trigger_id"] in later)
        times += [line["at"] for line in answers if line["answer"]["verdict"] in _GOOD][:1]
    return min(times, default=None)


def _answers(evidence: Evidence) -> Counter[str]:
    told: Counter[str] = Counter()
    for lines in evidence.clients.values():
        for line in lines:
            if line["did"] == "answer":
                answer = line["answer"]
                reason = "silence" if line["silent"] else answer["reason"]
                told[answer["verdict"] + (f"/{reason}" if reason else "")] += 1
    return told


def _epochs(evidence: Evidence) -> set[int]:
    return {line["epoch"] for lines in evidence.clients.values() for line in lines if line.get("epoch") is not None}


def _times(name: str, count: int, seconds: Iterable[float]) -> str:
    known = list(seconds)
    spread = f"{median(known):>8.2f}{max(known):>8.2f}" if known else f"{'-':>8}{'-':>8}"
    return f"{name:<24}{count:>6}{len(known):>6}{spread}"


def _list(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common()) or "none"
