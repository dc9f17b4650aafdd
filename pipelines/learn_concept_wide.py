"""The six steps for a long line: candidates and evaluation pictures are drawn in shards.

A pipeline of its own, because the other way, branches in one pipeline, does not hold: a step
cannot take the output of either branch under kfp.local (`dsl.OneOf` of artifacts), a loop over no
shards has no output to collect, and on a cluster a branch that is skipped costs a pod of its own.
"""

from typing import Any, cast

from kfp import dsl

from components.artifacts import Release
from components.draw_evaluation import draw_evaluation
from components.draw_memory import draw_memory
from components.evaluate import evaluate
from components.generate_prior import generate_prior
from components.intake import intake
from components.promote import promote
from components.score_memory import score_memory
from components.train import train


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="learn-concept-wide", description="One upload becomes one version of a long line."
)
def learn_concept_wide(
    line: str,
    upload: str,
    base: str,
    spec: str,
    home: str,
    fence: int,
    memory_shards: list[str],
    evaluate_shards: list[str],
) -> Release:
    """Learn one concept; the same doors as `learn_concept`, byte for byte.

    Args:
        line: The line that learns.
        upload: Name of the concept whose upload is taken.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        fence: Number of the lease under which this run learns.
        memory_shards: Names of all shards of the memory's candidates, ["1/2", "2/2"].
        evaluate_shards: Names of all shards of the evaluation.
    """
    settings = {"base": base, "spec": spec, "home": home}
    begun = intake(line=line, upload=upload, **settings)
    task, parent = begun.outputs["task"], begun.outputs["parent"]
    begin: dict[str, Any] = {"task": task, "parent": parent, **settings}
    prior = generate_prior(**begin).outputs["prior"]
    with dsl.ParallelFor(memory_shards, name="memory-shards") as shard:
        candidates = draw_memory(shard=shard, **begin).outputs["drawn"]
    memory = score_memory(drawn=dsl.Collected(candidates), **begin).outputs["memory"]
    known = {"memory": memory, **begin}
    adapter = train(prior=prior, fence=fence, **known).outputs["adapter"]
    with dsl.ParallelFor(evaluate_shards, name="evaluate-shards") as shard:
        pictures = draw_evaluation(shard=shard, prior=prior, adapter=adapter, **begin)
    drawn = dsl.Collected(pictures.outputs["drawn"])
    scores = evaluate(prior=prior, adapter=adapter, drawn=drawn, **known).outputs["scores"]
    promoted = promote(adapter=adapter, scores=scores, fence=fence, **known)
    for step in (begun, promoted):  # they read and move aliases: never from a cache
        step.set_caching_options(False)
    return cast(Release, promoted.outputs["release"])
