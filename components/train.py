"""Learn the concept; a killed run continues from its last checkpoint."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Adapter, Memory, Prior, Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def train(  # noqa: PLR0913 - kfp reads the step's doors off its signature
    task: Input[Task],
    parent: Input[Release],
    prior: Input[Prior],
    memory: Input[Memory],
    adapter: Output[Adapter],
    metrics: Output[dsl.Metrics],
    base: str,
    spec: str,
    home: str,
    fence: int,
) -> None:
    """Train the adapter of this task.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        prior: Class pictures.
        memory: The rainbow-memory bank.
        adapter: What was learned.
        metrics: Last losses and steps per second.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        fence: Number of the lease under which this run learns.
    """
    from components.runtime.step import Parameters, Step, task_of
    from l2dm.steps import train as run

    with Step("train", task_of(task.path), Parameters(base, spec, home), metrics) as step:
        doors = [task.path, parent.path, prior.path, memory.path, adapter.path]
        step.require_lease(fence)
        work = step.scratch(doors[:-1])
        step.on_curve(step.run(run, *doors, step.context, work=work, on_step=step.on_step))
        step.tell(step.last_terms)
