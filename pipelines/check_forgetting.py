"""A check of a line's champion: does it still draw what it drew at its release?"""

from typing import cast

from kfp import dsl

from components.artifacts import Check
from components.check import check


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="check-forgetting", description="Does a line's champion still remember?"
)
def check_forgetting(line: str, base: str, spec: str, home: str, seed: int = 0) -> Check:
    """Check one line.

    Args:
        line: The line whose champion is checked.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        seed: Of the fresh pictures; 0 takes one from the minute in which the check begins.
    """
    step = check(line=line, base=base, spec=spec, home=home, seed=seed)
    step.set_caching_options(False)  # the same question every night, another answer perhaps
    return cast(Check, step.outputs["checked"])
