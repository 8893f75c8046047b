"""A disk that hangs is found; one that is idle, slow or refuses is not taken for one."""

from edge_runtime.service.disk_watch import DiskWatch

S = 1_000_000_000


def test_a_disk_hangs_when_something_waits_and_nothing_came_back_for_a_second() -> None:
    watch = DiskWatch(0)
    assert not watch.hangs(S - 1, backlog=1)
    assert watch.hangs(S, backlog=1)


def test_a_disk_without_work_never_hangs_and_has_its_second_from_when_work_comes() -> None:
    watch = DiskWatch(0)
    assert not watch.hangs(100 * S, backlog=0)
    assert not watch.hangs(101 * S - 1, backlog=3)
    assert watch.hangs(101 * S, backlog=3)


def test_a_disk_that_does_something_now_and_then_does_not_hang() -> None:
    watch = DiskWatch(0)
    watch.heard(S)
    assert not watch.hangs(2 * S - 1, backlog=9)
    assert watch.hangs(2 * S, backlog=9)
    watch.heard(3 * S)
    assert not watch.hangs(3 * S, backlog=9)
