"""Does the champion still draw what it drew at its release? Asked alone, on a schedule."""

from kfp import dsl
from kfp.dsl import Output

from components.artifacts import Check
from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def check(  # noqa: PLR0913 - kfp reads the step's doors off its signature
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
    """Check the champion, tell what was found, and act as the spec's policy says.

    Args:
        checked: What was found, with its pictures.
        metrics: Scores of every concept.
        report: The report of the line.
        summary: What was found, in words.
        line: The line whose champion is checked.
        base: Load name of the base model.
        spec: `l2dm.spec.Spec` as JSON.
        home: The state folder.
        seed: Of the fresh pictures; 0 takes one from the minute in which the check begins.
    """
    from components.runtime.check_outcome import ChampionCheck
    from components.runtime.step import Parameters, Step, checks_of
    from l2dm.steps import check as run

    with Step("check", checks_of(line), Parameters(base, spec, home), metrics) as step:
        champion = ChampionCheck(step, run, seed)
        door, version = champion.check(checked.path)
        champion.conclude(door, version, report.path, summary.path)
