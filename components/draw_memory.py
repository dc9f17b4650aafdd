"""One shard of the pictures that `score_memory` chooses from, on long lines."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Drawn, Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def draw_memory(
    task: Input[Task],
    parent: Input[Release],
    drawn: Output[Drawn],
    metrics: Output[dsl.Metrics],
    base: str,
    spec: str,
    home: str,
    shard: str,
) -> None:
    """Draw every n-th batch of candidates with the parent.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        drawn: Pictures and latents.
        metrics: Number of pictures.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        shard: Which shard, such as "2/4".
    """
    from components.runtime.step import Parameters, Step, shard_name, task_of
    from l2dm.steps import draw_memory as run

    name = shard_name("draw_memory", shard)
    with Step(name, task_of(task.path), Parameters(base, spec, home), metrics) as step:
        folders = [task.path, parent.path, drawn.path]
        door = step.run(run, *folders, step.context, shard=shard)
        step.tell({"pictures": sum(len(call.seeds) for call in door.record.calls)})
