"""Which bundle runs, which is ready to, and which one can go back to."""

from pathlib import Path

from support.headers import FRAME

from edge_runtime.service.bundles import Choice, wanted
from edge_runtime.service.store import BundleFacts


def facts(letter: str) -> BundleFacts:
    return BundleFacts(path=Path(f"/srv/{letter}.takt"), digest=letter * 64, product=letter, frame=FRAME)


A, B, C = facts("a"), facts("b"), facts("c")


def test_activate_takes_the_staged_bundle_and_keeps_the_one_before() -> None:
    choice = Choice(A, A, staged=B)
    choice.activate()
    assert (choice.active, choice.previous, choice.staged) == (B, A, None)


def test_roll_back_goes_back_and_a_second_one_returns() -> None:
    choice = Choice(A, B, previous=A)
    choice.roll_back()
    assert (choice.active, choice.previous) == (A, B)
    choice.roll_back()
    assert (choice.active, choice.previous) == (B, A)


def test_activating_what_is_active_keeps_the_way_back() -> None:
    choice = Choice(A, B, previous=A, staged=facts("b"))
    choice.activate()
    assert (choice.active, choice.previous, choice.staged) == (B, A, None)


def test_nothing_staged_and_nothing_before_changes_nothing() -> None:
    choice = Choice(A, A)
    choice.activate()
    choice.roll_back()
    assert (choice.active, choice.previous, choice.staged) == (A, None, None)


def test_every_bundle_in_use_has_its_workers_and_cameras_share_them() -> None:
    choices = [Choice(A, B, staged=C, previous=A), Choice(A, B)]
    found = wanted(choices, workers=2, warm_previous=True)
    assert {name: one.product for name, one in found.items()} == {
        f"{letter * 12}-{number}": letter for letter in "abc" for number in (0, 1)
    }
    assert set(wanted(choices, workers=1, warm_previous=False)) == {"b" * 12 + "-0", "c" * 12 + "-0"}


def test_the_bundle_before_is_wanted_while_it_is_to_take_over_again() -> None:
    choice = Choice(A, B, previous=A, returning=True)
    assert set(wanted([choice], workers=1, warm_previous=False)) == {"a" * 12 + "-0", "b" * 12 + "-0"}
    choice.roll_back()
    assert (choice.active, choice.previous, choice.returning) == (A, B, False)
    assert set(wanted([choice], workers=1, warm_previous=False)) == {"a" * 12 + "-0"}
