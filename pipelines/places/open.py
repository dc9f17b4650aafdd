"""Which place carries out runs, as `l2dm dispatch --runner` names it, seen to before any starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

from components.services.store.home import Home
from pipelines.places.settings import Settings, load

if TYPE_CHECKING:
    from pipelines.places.cluster import ClusterRuns
    from pipelines.places.containers import DockerRuns
    from pipelines.places.runs import LocalRuns

Runner = Literal["local", "docker", "cluster"]
AnyRuns = Union["LocalRuns", "DockerRuns", "ClusterRuns"]


def read_settings(config: Path | None) -> Settings:
    """The settings of a file, or those that say nothing. Raises BadSettings."""
    return load(config) if config is not None else Settings()


def sees(runner: Runner, base: str) -> bool:
    """Whether this machine can look at a base before a step does: not at a path in a pod."""
    return runner != "cluster" or not base.startswith("/")


def open_runs(runner: Runner, settings: Settings, home: Home, base: str) -> AnyRuns:
    """Runs of one place. Raises BadSettings with every problem, PlatformError where it refuses."""
    if runner == "cluster":
        from pipelines.places.cluster import ClusterRuns, require_cluster

        require_cluster(home, settings, base)
        cluster = ClusterRuns(home, settings)
        cluster.prepare()
        return cluster
    if runner == "docker":
        from pipelines.places.containers import DockerRuns, require_docker

        require_docker(home, settings)
        docker = DockerRuns(home, settings)
        docker.prepare()
        return docker
    from pipelines.places.runs import LocalRuns

    return LocalRuns(home)
