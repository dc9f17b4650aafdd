"""Rainbow memory: pictures of past concepts from the parent, the best kept."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Memory, Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def score_memory(
    task: Input[Task],
    parent: Input[Release],
    memory: Output[Memory],
    metrics: Output[dsl.Metrics],
    base: str,
    spec: str,
    home: str,
    drawn: Input[list[dsl.Artifact]] = None,  # of Drawn: kfp knows no list of our own types
) -> None:
    """Fill the short-term memory with the parent's best pictures of past concepts.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        memory: Long-term features and short-term pictures.
        metrics: Number of concepts and pictures in memory.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        drawn: What `draw_memory` drew in shards; none: everything is drawn here.
    """
    from components.runtime.step import Parameters, Step, folders_of, task_of
    from l2dm.steps import score_memory as run

    with Step("score_memory", task_of(task.path), Parameters(base, spec, home), metrics) as step:
        folders = [task.path, parent.path, memory.path]
        options = {"drawn": folders_of(drawn), "on_progress": step.on_progress}
        door = step.run(run, *folders, step.context, **options)
        record = door.record
        step.tell({"concepts": len(record.long_term), "replayed": len(record.short_term)})
