"""The new row of every matrix."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Adapter, Memory, Prior, Release, Scores, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def evaluate(  # noqa: PLR0913 - kfp reads the step's doors off its signature
    task: Input[Task],
    parent: Input[Release],
    prior: Input[Prior],
    memory: Input[Memory],
    adapter: Input[Adapter],
    scores: Output[Scores],
    metrics: Output[dsl.Metrics],
    summary: Output[dsl.Markdown],
    base: str,
    spec: str,
    home: str,
    drawn: Input[list[dsl.Artifact]] = None,  # of Drawn: kfp knows no list of our own types
) -> None:
    """Draw every known concept with the new adapter and measure it.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        prior: Class pictures.
        memory: The rainbow-memory bank.
        adapter: What was learned.
        scores: The matrices with their new row.
        metrics: The new row in numbers.
        summary: The new row as a table.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        drawn: What `draw_evaluation` drew in shards; none: everything is drawn here.
    """
    from components.runtime.outcomes import record_scores
    from components.runtime.step import Parameters, Step, folders_of, task_of
    from l2dm.steps import evaluate as run

    with Step("evaluate", task_of(task.path), Parameters(base, spec, home), metrics) as step:
        inputs = [task.path, parent.path, prior.path, memory.path, adapter.path]
        door = step.run(run, *inputs, scores.path, step.context, drawn=folders_of(drawn))
        record_scores(step, door, summary.path)
