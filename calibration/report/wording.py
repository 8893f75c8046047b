"""Owns how the report says numbers: shares, scores, counts, and a rate with what it rests on."""

from dataclasses import dataclass

from calibration.rates import Rate

NOTHING = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class RateName:
    """What a rate is called and what it counts."""

    title: str
    of: str  # what the n are, in the singular, such as `good part`
    what: str  # what happened to the k, such as `rejected`
    meaning: str  # the definition
    tone: str  # its colour where k is above 0: "bad" or "warn"


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLine:
    """A rate as a person reads it, and where it lies on a strip from 0 to 100 %."""

    name: RateName
    value: str
    words: str
    tone: str  # "bad", "warn", "fine" or "none"
    low: float | None  # in percent, as are the next two
    middle: float | None
    high: float | None


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, or a dash for what does not exist."""
    return NOTHING if value is None else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """One digit after the point; more where it would otherwise read 0 or 100 % and is not."""
    value = 100 * share
    for digits in range(1, 5):
        text = f"{value:.{digits}f}"
        if float(text) not in {0.0, 100.0} or value in {0.0, 100.0}:
            return text
    return f"{value:.1f}"


def count(amount: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def rate_words(rate: Rate, name: RateName) -> str:
    """Say k of n in words with the interval, such as `2 of 40 good parts rejected: 5.0 %, 95 % interval 0.6-16.9 %`."""
    return (
        f"{rate.k} of {count(rate.n, name.of)} {name.what}: {percent(rate.value)} %, "
        f"{rate.confidence * 100:g} % interval {percent(rate.low)}-{percent(rate.high)} %"
    )


def rate_line(name: RateName, rate: Rate | None) -> RateLine:
    """A rate for the head of the report; None where nothing was observed."""
    if rate is None:
        words = f"not measured: the data set has no {name.of}"
        return RateLine(name=name, value=NOTHING, words=words, tone="none", low=None, middle=None, high=None)
    return RateLine(
        name=name,
        value=f"{percent(rate.value)} %",
        words=rate_words(rate, name),
        tone=name.tone if rate.k else "fine",
        low=100 * rate.low,
        middle=100 * rate.value,
        high=100 * rate.high,
    )


def readable(name: str) -> str:
    """A file name with everything that does not print, or turns the text around it, spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name)
