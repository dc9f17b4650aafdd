"""The gate, then the registry: every finished task becomes a version, open gates move aliases."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Adapter, Memory, Release, Scores, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def promote(  # noqa: PLR0913 - kfp reads the step's doors off its signature
    task: Input[Task],
    parent: Input[Release],
    memory: Input[Memory],
    adapter: Input[Adapter],
    scores: Input[Scores],
    release: Output[Release],
    metrics: Output[dsl.Metrics],
    report: Output[dsl.HTML],
    summary: Output[dsl.Markdown],
    base: str,
    spec: str,
    home: str,
    fence: int,
) -> None:
    """Judge, register, and move the aliases as the verdict says.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        memory: The rainbow-memory bank.
        adapter: What was learned.
        scores: The matrices with their new row.
        release: Adapter, memory, scores and verdict.
        metrics: Version number and whether it is the champion.
        report: The report of the line.
        summary: The verdict with its reasons.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        fence: Number of the lease under which this run learns.
    """
    from components.runtime.outcomes import publish
    from components.runtime.step import Parameters, Step, task_of
    from l2dm.steps import promote as run

    with Step("promote", task_of(task.path), Parameters(base, spec, home), metrics) as step:
        inputs = [task.path, parent.path, memory.path, adapter.path, scores.path]
        door = step.run(run, *inputs, release.path, step.context)
        publish(step, fence, door, scores.path, report.path, summary.path)
