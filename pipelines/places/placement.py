"""Settings applied to a pipeline: image, resources, secrets and volumes of every step.

A pipeline's function is traced again with the settings of each task, found by the name of its
component, so that the same settings fit every pipeline and every number of parallel tasks.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from pathlib import PurePosixPath
from typing import Any

from kfp import dsl
from kfp.dsl.pipeline_context import Pipeline

from components.services.store.home import SCRATCH
from l2dm.errors import BadSettings
from pipelines.places.settings import NOUN, Settings, StepSettings

SHM = "/dev/shm"


@dataclass
class Placement:
    """Pipelines being placed. seen: every step of theirs; problems: what cannot be.

    image: instead of that of the settings.
    """

    settings: Settings
    image: str = ""
    seen: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def place(self, pipeline: Any) -> Any:
        """The same pipeline, its steps placed as the settings say."""
        spec = pipeline.component_spec

        @wraps(pipeline.pipeline_func)
        def traced(*args: Any, **arguments: Any) -> Any:
            outputs = pipeline.pipeline_func(*args, **arguments)
            for task in Pipeline.get_default_pipeline().tasks.values():
                self._place_task(task)
            return outputs

        info = spec.implementation.graph.pipeline_info
        return dsl.pipeline(
            name=spec.name,
            description=spec.description,
            display_name=info.display_name or None,
            pipeline_config=pipeline.pipeline_config,
        )(traced)

    def require(self) -> None:
        """Raise BadSettings for what no pipeline can do, steps that none has among it."""
        unknown = sorted(set(self.settings.steps) - self.seen)
        problems = [*self.problems, *(self._unknown(name) for name in unknown)]
        if problems:
            raise BadSettings(sorted(set(problems)))

    def _unknown(self, name: str) -> str:
        known = sorted(self.seen)
        near = get_close_matches(name, known, n=1, cutoff=0.0)
        return f"{NOUN} has no step {name!r}; nearest known step: {near[0]}, all: {known}"

    def _place_task(self, task: Any) -> None:
        name = task.component_spec.name.replace("-", "_")
        if task.pipeline_spec is not None:  # it was traced before: its steps would get nothing
            self.problems.append(
                f"{NOUN}: expected steps only, found the pipeline {name!r} within a pipeline, "
                "which settings do not reach; wire its steps into the outer one"
            )
        if task.container_spec is None:
            return
        self.seen.add(name)
        settings, step = self.settings, self.settings.step(name)
        if self.image or settings.image:
            task.set_container_image(self.image or settings.image)
        for variable, value in sorted(self._environment(step).items()):
            task.set_env_variable(variable, value)
        _set_resources(task, step)
        self._set_retry(task, name, step)
        _set_pod(task, settings, step)

    def _environment(self, step: StepSettings) -> Mapping[str, str]:
        scratch = self.settings.scratch
        place = {SCRATCH: scratch.mount} if scratch else {}
        return {**place, **self.settings.environment, **step.environment}

    def _set_retry(self, task: Any, name: str, step: StepSettings) -> None:
        """Steps that are never cached act on records and aliases: the dispatcher repeats those."""
        retry = step.retry
        if retry is None or not retry.times:
            return
        if task._task_spec.enable_caching:
            task.set_retry(
                num_retries=retry.times,
                backoff_duration=f"{retry.wait}s",
                backoff_factor=retry.factor,
                backoff_max_duration=f"{retry.longest}s",
            )
        elif self.settings.steps.get(name, StepSettings()).retry is not None:
            self.problems.append(
                f"{NOUN} steps.{name}.retry: expected none, because this step acts on records and "
                "aliases; the dispatcher repeats the whole run instead"
            )


def placed(pipelines: Mapping[str, Any], settings: Settings, image: str = "") -> dict[str, Any]:
    """Pipelines with their steps placed. Raises BadSettings with every problem of all of them."""
    placement = Placement(settings, image)
    found = {name: placement.place(pipeline) for name, pipeline in pipelines.items()}
    placement.require()
    return found


def base_problems(settings: Settings, base: str) -> Iterator[str]:
    """Why a base cannot be read by a pod: a folder must lie in the volume of base models."""
    if not base.startswith(("/", ".")):
        return
    volume = settings.bases
    if volume is None or PurePosixPath(volume.mount) not in PurePosixPath(base).parents:
        where = f"below {volume.mount} ([bases] of {NOUN})" if volume else "in a volume"
        yield (
            f"base {base!r}: expected pocket, org/name, s3://bucket/prefix or a folder {where}, "
            f"because pods do not see the folders of this machine; set [bases] in {NOUN}, or name "
            "another base"
        )


def _set_resources(task: Any, step: StepSettings) -> None:
    given = {
        task.set_cpu_request: step.cpu_request,
        task.set_cpu_limit: step.cpu_limit,
        task.set_memory_request: step.memory_request,
        task.set_memory_limit: step.memory_limit,
    }
    for put, amount in given.items():
        if amount is not None:
            put(amount)
    if step.gpu is not None and step.gpu.count:
        task.set_accelerator_type(step.gpu.type).set_accelerator_limit(step.gpu.count)


def _set_pod(task: Any, settings: Settings, step: StepSettings) -> None:
    """What only Kubernetes knows; it lands in the platform's part of the YAML."""
    kubernetes = _kubernetes()
    for secret, variables in sorted(settings.secrets.items()):
        for variable, key in sorted(variables.items()):
            kubernetes.use_secret_as_env(task, secret, {key: variable})
    for volume in _some(settings.bases, settings.scratch):
        kubernetes.mount_pvc(task, volume.claim, volume.mount, volume.sub_path)
    if step.shm is not None:
        kubernetes.empty_dir_mount(task, "shm", SHM, medium="Memory", size_limit=step.shm)
    for label, value in sorted(step.node_selector.items()):
        kubernetes.add_node_selector(task, label, value)
    for one in step.tolerations:
        kubernetes.add_toleration(
            task,
            key=one.key or None,
            operator=one.operator,
            value=one.value or None,
            effect=one.effect or None,
            toleration_seconds=one.seconds,
        )
    if step.timeout is not None:
        kubernetes.set_timeout(task, step.timeout)
    if settings.cluster.user is not None:
        kubernetes.set_security_context(
            task, run_as_user=settings.cluster.user, run_as_non_root=True
        )
    if settings.cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.cluster.pull_secrets))


def _kubernetes() -> Any:
    try:
        from kfp import kubernetes
    except ImportError as error:
        raise BadSettings(
            "expected the package kfp-kubernetes, which writes pods' settings, found none; "
            "pip install 'l2dm[cluster]'"
        ) from error
    return kubernetes


def _some(*values: Any) -> Iterable[Any]:
    return (value for value in values if value is not None)
