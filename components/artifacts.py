"""The doors as pipeline artifacts. One type a door: a pipeline that mixes them does not compile."""

from kfp import dsl


class Task(dsl.Artifact):  # type: ignore[misc]
    """An accepted upload (`l2dm.doors.Task`)."""

    schema_title = "system.L2dmTask"
    schema_version = "0.0.1"


class Prior(dsl.Artifact):  # type: ignore[misc]
    """Class pictures of the pretrained base (`l2dm.doors.Prior`)."""

    schema_title = "system.L2dmPrior"
    schema_version = "0.0.1"


class Memory(dsl.Artifact):  # type: ignore[misc]
    """The rainbow-memory bank (`l2dm.doors.Memory`)."""

    schema_title = "system.L2dmMemory"
    schema_version = "0.0.1"


class Drawn(dsl.Artifact):  # type: ignore[misc]
    """One shard of what a step draws (`l2dm.doors.Drawn`)."""

    schema_title = "system.L2dmDrawn"
    schema_version = "0.0.1"


class Adapter(dsl.Artifact):  # type: ignore[misc]
    """What a method learned (`l2dm.doors.Adapter`)."""

    schema_title = "system.L2dmAdapter"
    schema_version = "0.0.1"


class Scores(dsl.Artifact):  # type: ignore[misc]
    """The task-by-task matrices (`l2dm.doors.Scores`)."""

    schema_title = "system.L2dmScores"
    schema_version = "0.0.1"


class Release(dsl.Artifact):  # type: ignore[misc]
    """One registry version (`l2dm.doors.Release`)."""

    schema_title = "system.L2dmRelease"
    schema_version = "0.0.1"


class Check(dsl.Artifact):  # type: ignore[misc]
    """What a check of a version found (`l2dm.doors.Check`)."""

    schema_title = "system.L2dmCheck"
    schema_version = "0.0.1"
