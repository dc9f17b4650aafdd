"""One shard of the pictures that `evaluate` measures, on long lines."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Adapter, Drawn, Prior, Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def draw_evaluation(  # noqa: PLR0913 - kfp reads the step's doors off its signature
    task: Input[Task],
    parent: Input[Release],
    prior: Input[Prior],
    adapter: Input[Adapter],
    drawn: Output[Drawn],
    metrics: Output[dsl.Metrics],
    base: str,
    spec: str,
    home: str,
    shard: str,
) -> None:
    """Draw every n-th known concept and class noun with the new adapter.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        prior: Class pictures.
        adapter: What was learned.
        drawn: Pictures.
        metrics: Number of pictures.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        shard: Which shard, such as "2/4".
    """
    from components.runtime.step import Parameters, Step, shard_name, task_of
    from l2dm.steps import draw_evaluation as run

    name = shard_name("draw_evaluation", shard)
    with Step(name, task_of(task.path), Parameters(base, spec, home), metrics) as step:
        folders = [task.path, parent.path, prior.path, adapter.path, drawn.path]
        door = step.run(run, *folders, step.context, shard=shard)
        step.tell({"pictures": sum(len(call.seeds) for call in door.record.calls)})
