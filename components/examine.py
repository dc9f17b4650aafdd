"""Does the champion still remember? Evaluated alone, on a schedule."""

from kfp import dsl
from kfp.dsl import Output

from components.artifacts import Check
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def examine(  # noqa: PLR0913 - kfp reads the step's doors off its signature
    checked: Output[Check],
    metrics: Output[dsl.Metrics],
    report: Output[dsl.HTML],
    summary: Output[dsl.Markdown],
    line: str,
    base: str,
    spec: str,
    home: str,
    seed: int,
) -> None:
    """Examine the champion again, tell what was found, and act as the spec's policy says.

    Args:
        checked: What was found, with its pictures.
        metrics: Scores of every concept.
        report: The report of the line.
        summary: What was found, in words.
        line: The line whose champion is examined.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        seed: Of the fresh pictures; 0 takes one from the minute in which the check begins.
    """
    from components.runtime.check_outcome import Checkup
    from components.runtime.step import Parameters, Step, checks_of
    from l2dm.steps import examine as run

    with Step("examine", checks_of(line), Parameters(base, spec, home), metrics) as step:
        checkup = Checkup(step, run, seed)
        door, version = checkup.champion(checked.path)
        checkup.conclude(door, version, report.path, summary.path)
