"""A run whose end is recorded takes its leave; one that was replaced is stopped."""

from tests.worlds.dispatch_world import World, expire


def test_the_next_run_waits_until_the_last_one_has_left_and_its_scratch_is_swept(
    world: World,
) -> None:
    """A run records its end some moments before its process is gone."""
    for name in ("mimi", "rex"):
        world.upload("pets", name)
    look = world.dispatcher.reconcile
    look("pets")
    (name,) = world.runs.running()
    work = world.home.work("pets", world.runs.jobs[name].concept) / "key"
    work.mkdir(parents=True)
    world.runs.finish(name)
    del world.runs.ends[name]  # its process is still there
    assert [look("pets"), look("pets")] == ["running", "running"]
    assert work.exists()
    world.now += 61
    assert look("pets") == "started"
    assert world.runs.stopped == [name]
    assert not work.exists()


def test_a_run_that_another_dispatcher_replaced_is_stopped_by_its_own(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (old,) = world.runs.running()
    world.runs.stop = lambda name: None  # type: ignore[method-assign] # of another machine
    expire(world)
    other = world.another()
    assert other.reconcile("pets") == "retried"
    world.now += 31
    assert other.reconcile("pets") == "started"
    stopped: list[str] = []
    world.runs.stop = stopped.append  # type: ignore[method-assign]
    assert [world.dispatcher.reconcile("pets") for _ in range(2)] == ["again", "busy"]
    assert stopped == [old]
