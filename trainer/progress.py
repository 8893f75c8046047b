"""Owns progress that is counted and not iterated: on stderr, quiet where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def counter(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar that is told how far things are."""
    with tqdm(total=total, desc=what, unit="", leave=False, disable=None) as bar:

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        yield advance
