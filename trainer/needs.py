"""Owns what is known before a fit begins of what will come of it: how large graph and bundle will be, and whether one holds it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_runtime.errors import ConfigError
from trainer.backbones import Features
from trainer.models.method import FitData, FitSettings, Method, state_bytes

MAX_GRAPH_BYTES = 1_980_000_000  # a bundle of 4 GB holds two, with 1 % for all else; ONNX itself ends at 2.1 GB
_ENGINES = 2  # a bundle holds every graph once for each
_SMALLER = {
    "layers": "fewer or other --layers",
    "backbone": "another --backbone",
    "coreset": "a smaller --coreset",
    "width": "a smaller --width",
}


@dataclass(frozen=True, slots=True)
class Smaller:
    """How the same fit may be made smaller: what a refusal names."""

    side: str  # the flag that makes what the graph sees smaller
    ways: Callable[[], Iterable[tuple[str, FitData]]] = tuple  # flags and what they lead to, the nearest first

    def advice(self, size: Callable[[FitData], int], limit: float) -> str:
        """The first way at which a size is within a limit."""
        return next((f"{flags} would fit; else " for flags, data in self.ways() if size(data) <= limit), "")


SQUASHED = Smaller("--size")


def check_graph(
    method: Method,
    features: Features,
    data: FitData,
    settings: FitSettings,
    *,
    graphs: int = 1,
    smaller: Smaller = SQUASHED,
) -> int:
    """What one graph's weights and constants will take, in bytes; one that no bundle can hold is refused.

    Args:
        method: what is to be fitted.
        features: the first half of its graph.
        data: the shares.
        settings: of the fit.
        graphs: 2 where there will be a frame graph, which holds the same once more.
        smaller: to name what fits.

    Raises:
        ConfigError: it is larger than a bundle holds, or the tiles are not what the method takes.
    """

    def held(of: FitData) -> int:
        return state_bytes(method.stand_in(features, of, settings))

    size, limit = held(data), MAX_GRAPH_BYTES // graphs
    if size > limit:
        fits = smaller.advice(held, limit)
        own = "".join(f", {advice}" for flag, advice in _SMALLER.items() if flag in method.settings)
        message = (
            f"--method {method.name}: the graph of this fit would take {size / 1e9:.2f} GB, a bundle holds graphs of "
            f"{limit / 1e9:.2f} GB{' where there are two' if graphs > 1 else ''}: {fits}take a smaller {smaller.side}, "
            f"fewer images (--limit){own}, or another --method"
        )
        raise ConfigError(message)
    return size


def told(method: Method, *, memory: int, graph: int, graphs: int = 1) -> str:
    """The line that is said before a fit.

    Args:
        method: what is to be fitted.
        memory: bytes that the fit will take, by the method's own prediction.
        graph: bytes of the whole graph.
        graphs: 2 where there will be a frame graph as well.
    """
    return (
        f"{method.name}: the fit takes about {_rounded(memory)} of memory; the bundle will be about "
        f"{_rounded(_ENGINES * graphs * graph)}, the graph in use takes {_rounded(graph)} at least"
    )


def _rounded(size: int) -> str:
    """Two digits, as sure as a prediction is: 3 MB, 0.62 GB, 14 GB."""
    megabytes = max(1, round(size / 1e6))
    if megabytes < 100:  # noqa: PLR2004 - from 0.1 GB on in GB
        return f"{megabytes} MB"
    gigabytes = size / 1e9
    digits = 2 if gigabytes < 0.995 else 1 if gigabytes < 9.95 else 0  # noqa: PLR2004 - where rounding gains a digit
    return f"{gigabytes:.{digits}f} GB"
