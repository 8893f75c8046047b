"""Owns what is known before a fit begins of what will come of it: how large graph and bundle will be, and whether one holds it."""

from edge_runtime.errors import ConfigError
from trainer.backbones import Features
from trainer.models.method import FitData, FitSettings, Method, state_bytes

MAX_GRAPH_BYTES = 1_980_000_000  # a bundle of 4 GB holds two, with 1 % for all else; ONNX itself ends at 2.1 GB
_GRAPHS = 2  # in a bundle: one for each engine
_SMALLER = {
    "layers": "fewer or other --layers",
    "backbone": "another --backbone",
    "coreset": "a smaller --coreset",
    "width": "a smaller --width",
}


def check_graph(method: Method, features: Features, data: FitData, settings: FitSettings) -> int:
    """What the whole graph's weights and constants will take, in bytes; one that no bundle can hold is refused.

    Raises:
        ConfigError: it is larger than `MAX_GRAPH_BYTES`, or the tiles are not what the method takes.
    """
    size = state_bytes(method.stand_in(features, data, settings))
    if size > MAX_GRAPH_BYTES:
        own = "".join(f", {advice}" for flag, advice in _SMALLER.items() if flag in method.settings)
        message = (
            f"--method {method.name}: the graph of this fit would take {size / 1e9:.2f} GB, a bundle holds graphs of "
            f"{MAX_GRAPH_BYTES / 1e9:.2f} GB: take a smaller --size, fewer images (--limit){own}, or another --method"
        )
        raise ConfigError(message)
    return size


def told(method: Method, *, memory: int, graph: int) -> str:
    """The line that is said before a fit.

    Args:
        method: what is to be fitted.
        memory: bytes that the fit will take, by the method's own prediction.
        graph: bytes of the whole graph.
    """
    return (
        f"{method.name}: the fit takes about {_rounded(memory)} of memory; the bundle will be about "
        f"{_rounded(_GRAPHS * graph)}, the graph in use takes {_rounded(graph)} at least"
    )


def _rounded(size: int) -> str:
    """Two digits, as sure as a prediction is: 3 MB, 0.62 GB, 14 GB."""
    megabytes = max(1, round(size / 1e6))
    if megabytes < 100:  # noqa: PLR2004 - from 0.1 GB on in GB
        return f"{megabytes} MB"
    gigabytes = size / 1e9
    digits = 2 if gigabytes < 0.995 else 1 if gigabytes < 9.95 else 0  # noqa: PLR2004 - where rounding gains a digit
    return f"{gigabytes:.{digits}f} GB"
