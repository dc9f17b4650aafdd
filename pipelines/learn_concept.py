"""One upload becomes one version: the six steps, wired."""

from typing import Any, cast

from kfp import dsl

from components.artifacts import Release
from components.evaluate import evaluate
from components.generate_prior import generate_prior
from components.intake import intake
from components.promote import promote
from components.score_memory import score_memory
from components.train import train


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="learn-concept", description="One upload becomes one version of a line."
)
def learn_concept(line: str, upload: str, base: str, spec: str, home: str, fence: int) -> Release:
    """Learn one concept.

    Args:
        line: The line that learns.
        upload: Name of the concept whose upload is taken.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        fence: Number of the lease under which this run learns.
    """
    settings = {"base": base, "spec": spec, "home": home}
    begun = intake(line=line, upload=upload, **settings)
    task, parent = begun.outputs["task"], begun.outputs["parent"]
    prior = generate_prior(task=task, parent=parent, **settings).outputs["prior"]
    memory = score_memory(task=task, parent=parent, **settings).outputs["memory"]
    known: dict[str, Any] = {"task": task, "parent": parent, "memory": memory, **settings}
    adapter = train(prior=prior, fence=fence, **known).outputs["adapter"]
    scores = evaluate(prior=prior, adapter=adapter, **known).outputs["scores"]
    promoted = promote(adapter=adapter, scores=scores, fence=fence, **known)
    for step in (begun, promoted):  # they read and move aliases: never from a cache
        step.set_caching_options(False)
    return cast(Release, promoted.outputs["release"])
