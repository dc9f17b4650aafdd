"""Accept one upload: fix the parent release, name the task, refuse with every reason at once."""

from kfp import dsl
from kfp.dsl import Output

from components.artifacts import Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def intake(
    task: Output[Task],
    parent: Output[Release],
    metrics: Output[dsl.Metrics],
    line: str,
    upload: str,
    base: str,
    spec: str,
    home: str,
) -> None:
    """Check an upload and fix the release that it will be learned from.

    Args:
        task: The accepted upload, pictures cropped.
        parent: The champion of the line, or the empty release.
        metrics: Number of pictures, parent version.
        line: The line that learns.
        upload: Name of the concept whose upload is taken.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
    """
    from components.runtime.outcomes import accept, begin
    from components.runtime.step import Parameters, Step, upload_of
    from l2dm.steps import empty_release
    from l2dm.steps import intake as run

    with Step("intake", upload_of(line, upload), Parameters(base, spec, home), metrics) as step:
        folder = step.fetch()
        context = begin(step, parent.path, empty_release)
        door = step.run(run, folder, parent.path, task.path, context)
        accept(step, door)
