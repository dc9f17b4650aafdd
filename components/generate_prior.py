"""Pictures of the class noun that the pretrained base draws."""

from kfp import dsl
from kfp.dsl import Input, Output

from components.artifacts import Prior, Release, Task
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def generate_prior(
    task: Input[Task],
    parent: Input[Release],
    prior: Output[Prior],
    metrics: Output[dsl.Metrics],
    base: str,
    spec: str,
    home: str,
) -> None:
    """Draw class pictures from the pretrained base, or take them from the cache.

    Args:
        task: The accepted upload.
        parent: The release that it is learned from.
        prior: Class pictures and their latents.
        metrics: Number of class nouns and pictures.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
    """
    from components.runtime.step import Parameters, Step, task_of
    from l2dm.steps import generate_prior as run

    with Step("generate_prior", task_of(task.path), Parameters(base, spec, home), metrics) as step:
        folders = [task.path, parent.path, prior.path]
        options = {"cache": step.home.prior_cache, "on_progress": step.on_progress}
        door = step.run(run, *folders, step.context, **options)
        step.tell({"nouns": len(door.record.nouns), "pictures": len(door.record.seeds)})
