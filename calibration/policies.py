"""Owns threshold policies: from the scores of calibration images to a raw threshold and what it promises."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.metrics import Curve, Scores, curve
from edge_runtime.errors import CalibrationError, ConfigError, TooFewSamplesError

NO_GUARANTEE = "none"
DEFAULT_ALPHA = 0.05
DEFAULT_SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A rule that turns calibration scores into a threshold, as the user wrote it."""

    name: str
    arguments: tuple[float, ...]

    def __str__(self) -> str:
        """The specification that parses back to this policy."""
        numbers = [repr(value).removesuffix(".0") for value in self.arguments]  # all digits: what was set stands there
        return ":".join([self.name, ",".join(numbers)]) if numbers else self.name

    @property
    def uses_defective(self) -> bool:
        """Whether the policy looks at defective images, and so needs some."""
        return self.name in {"f1", "youden", "cost", "recall"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """A raw threshold (`score >= value` rejects) with its policy and what that guarantees."""

    value: float
    policy: str
    guarantee: str
    n_good: int
    n_defective: int


_ARGUMENTS: dict[str, tuple[tuple[str, Callable[[float], bool]], ...]] = {
    "f1": (),
    "youden": (),
    "manual": (("RAW, a finite number", math.isfinite),),
    "quantile": (("Q, above 0 and up to 1", lambda value: 0 < value <= 1),),
    "sigma": (("K, 0 or more", lambda value: 0 <= value < math.inf),),
    "conformal": (("ALPHA, between 0 and 1", lambda value: 0 < value < 1 and math.isfinite(1 / value)),),
    "cost": (
        ("ESCAPE, above 0", lambda value: 0 < value < math.inf),
        ("REJECT, above 0", lambda value: 0 < value < math.inf),
        ("PRIOR, between 0 and 1", lambda value: 0 < value < 1),
    ),
    "recall": (("R, above 0 and up to 1", lambda value: 0 < value <= 1),),
}


def parse_policy(text: str) -> Policy:
    """Read a policy as flags write it, such as `conformal:0.01`.

    Raises:
        ConfigError: no such policy, or arguments that it cannot use.
    """
    name, _, rest = text.strip().partition(":")
    if name not in _ARGUMENTS:
        message = f"policy {text!r}: no such policy; there are {', '.join(_ARGUMENTS)}"
        raise ConfigError(message)
    expected = _ARGUMENTS[name]
    form = name + (":" + ",".join(wanted.partition(",")[0] for wanted, _ in expected) if expected else "")
    parts = rest.split(",") if rest else []
    try:
        arguments = tuple(float(part) for part in parts)
    except ValueError as error:
        message = f"policy {text!r}: arguments must be numbers, expected {form}"
        raise ConfigError(message) from error
    faults = [wanted for (wanted, holds), value in zip(expected, arguments, strict=False) if not holds(value)]
    if len(arguments) != len(expected) or faults:
        message = f"policy {text!r}: expected {form}" + (f" with {faults[0]}" if faults else "")
        raise ConfigError(message)
    return Policy(name=name, arguments=arguments)


def default_policy(n_good: int) -> Policy:
    """`conformal:0.05` where there are enough good images for it, else `sigma:3`, which promises nothing."""
    if n_good >= conformal_needs(DEFAULT_ALPHA):
        return Policy(name="conformal", arguments=(DEFAULT_ALPHA,))
    return Policy(name="sigma", arguments=(DEFAULT_SIGMAS,))


def conformal_needs(alpha: float) -> int:
    """Good calibration images without which a conformal threshold at this level does not exist."""
    return math.ceil(1 / alpha - 1e-9) - 1


def threshold(policy: Policy, good: Scores, defective: Scores) -> Threshold:
    """Apply a policy to calibration scores.

    Args:
        policy: the rule.
        good: (n,) raw scores of good images.
        defective: (m,) raw scores of defective images; may be empty where the policy does not need them.

    Raises:
        TooFewSamplesError: the policy needs more good or defective images; the message says how many.
        CalibrationError: a score is not finite.
    """
    if not (np.isfinite(good).all() and np.isfinite(defective).all()):
        message = "a calibration score is not finite: the model is broken, fit it again"
        raise CalibrationError(message)
    if policy.uses_defective:
        _need(policy, "defective", defective.size, 1)
    if policy.name not in {"manual", "recall"}:
        _need(policy, "good", good.size, 2 if policy.name == "sigma" else 1)
    value, guarantee = _RULES[policy.name](policy, good, defective)
    if not math.isfinite(value):
        message = f"policy {policy} gives the threshold {value}: choose another policy"
        raise CalibrationError(message)
    return Threshold(value=value, policy=str(policy), guarantee=guarantee, n_good=good.size, n_defective=defective.size)


def _need(policy: Policy, kind: str, found: int, needed: int) -> None:
    if found < needed:
        way = (
            "set a share of the test tree apart with `takt build --calibration-split`, or calibrate on other images that have some"
            if kind == "defective"
            else "give more good images, or a larger --holdout"
        )
        message = f"policy {policy} needs {needed} {kind} calibration images, there are {found}: {way}, or take another policy"
        raise TooFewSamplesError(message)


def _manual(policy: Policy, _good: Scores, _defective: Scores) -> tuple[float, str]:
    return policy.arguments[0], NO_GUARANTEE


def _quantile(policy: Policy, good: Scores, _defective: Scores) -> tuple[float, str]:
    return math.nextafter(float(np.quantile(good, policy.arguments[0])), math.inf), NO_GUARANTEE


def _sigma(policy: Policy, good: Scores, _defective: Scores) -> tuple[float, str]:
    value = float(good.mean() + policy.arguments[0] * good.std(ddof=1))
    return math.nextafter(max(value, float(good.mean())), math.inf), NO_GUARANTEE


def _conformal(policy: Policy, good: Scores, _defective: Scores) -> tuple[float, str]:
    """Split conformal: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005)."""
    alpha = policy.arguments[0]
    _need(policy, "good", good.size, conformal_needs(alpha))
    k = math.ceil((good.size + 1) * (1 - alpha) - 1e-9)  # the hair undoes float noise such as 19.000000000000004
    value = math.nextafter(float(np.sort(good)[k - 1]), math.inf)
    return (
        value,
        f"at most {alpha:g} of good parts are rejected, if they come from where the {good.size} calibration images came from",
    )


def _f1(_policy: Policy, good: Scores, defective: Scores) -> tuple[float, str]:
    return _between(good, defective, lambda counted: counted.f1)


def _youden(_policy: Policy, good: Scores, defective: Scores) -> tuple[float, str]:
    return _between(good, defective, lambda counted: counted.recall - counted.false_positive_rate)


def _cost(policy: Policy, good: Scores, defective: Scores) -> tuple[float, str]:
    """Least expected cost a part: ESCAPE for a defective part accepted, REJECT for a good one rejected, at PRIOR defects."""
    escape, reject, prior = policy.arguments

    def gain(counted: Curve) -> Scores:
        return -(escape * prior * (1 - counted.recall) + reject * (1 - prior) * counted.false_positive_rate)

    nothing = -escape * prior  # the cost of accepting every part
    value, guarantee = _between(good, defective, gain)
    counted = curve(good, defective)
    if counted is not None and float(gain(counted).max()) < nothing:
        return math.nextafter(float(max(good.max(), defective.max())), math.inf), guarantee
    return value, guarantee


def _recall(policy: Policy, _good: Scores, defective: Scores) -> tuple[float, str]:
    """The highest threshold that rejects at least the share of the defective calibration images."""
    caught = math.ceil(policy.arguments[0] * defective.size - 1e-9)
    return float(np.sort(defective)[::-1][caught - 1]), NO_GUARANTEE


def _between(good: Scores, defective: Scores, merit: Callable[[Curve], Scores]) -> tuple[float, str]:
    """The threshold of largest merit, moved half-way to the next lower score, so that neither class sits on it."""
    counted = curve(good, defective)
    if counted is None:
        message = "this policy needs good and defective calibration images"
        raise TooFewSamplesError(message)
    best = int(np.argmax(merit(counted)))
    upper = float(counted.thresholds[best])
    if best + 1 == counted.thresholds.size:
        return upper, NO_GUARANTEE
    middle = (upper + float(counted.thresholds[best + 1])) / 2
    return (middle if middle > counted.thresholds[best + 1] else upper), NO_GUARANTEE


_RULES = {
    "f1": _f1,
    "youden": _youden,
    "manual": _manual,
    "quantile": _quantile,
    "sigma": _sigma,
    "conformal": _conformal,
    "cost": _cost,
    "recall": _recall,
}
