"""Owns progress bars: on stderr, quiet where stderr is no terminal."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")


def progress(items: Sequence[_Item], what: str) -> Iterator[_Item]:
    """Iterate with a bar that says what is being done and how long it will take."""
    return iter(tqdm(items, desc=what, unit="", leave=False, disable=None))
