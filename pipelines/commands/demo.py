"""`l2dm demo`: three concepts of the pocket world, submitted and learned like anybody's."""

import shlex
import sys
import tempfile
from pathlib import Path

from components.services.store.home import Home
from pipelines.commands.learn import learn_all
from pipelines.commands.options import BASE, HOME, BaseOption, HomeOption, JsonOption, SetOption
from pipelines.commands.output import tell
from pipelines.commands.target import Target
from pipelines.commands.uploads.submit import submit_pictures

LINE = "demo"
PICTURES = 5
CONCEPTS = {"rex": "dog", "mimi": "cat", "sunny": "cup"}


def demo(
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn three pocket concepts with gated adapters, then print the report's path."""
    target = Target(home, LINE, base, tuple(settings or ()))
    write_uploads(target.home)
    learn_all(target, json)
    following = next_command(target)
    if following and not json:
        tell(f"try: {following}")


def write_uploads(home: Home) -> None:
    """Submit the demo's concepts that the line does not know yet."""
    from components.services.line.uploads import Uploads
    from l2dm.doors import Concept
    from l2dm.pocket.world.scenes import NOUNS, TUNING_SEEDS, identity, photos
    from l2dm.spec import IntakeSpec

    uploads = Uploads(home.store, LINE)
    for index, (name, noun) in enumerate(CONCEPTS.items()):
        if uploads.digest(name):
            continue
        assert noun in NOUNS
        subject = identity(TUNING_SEEDS[index], noun)
        with tempfile.TemporaryDirectory() as scratch:
            for number, picture in enumerate(photos(subject, PICTURES, seed=index)):
                picture.save(Path(scratch) / f"{number:02d}.png")
            submit_pictures(home, Path(scratch), LINE, Concept(name, noun), IntakeSpec())


def next_command(target: Target) -> str:
    """What to paste next: it draws the concept learned last; "" while there is no champion."""
    from components.services.line.records import Records

    ledger = Records(target.home.store, target.line).state()
    champion = ledger.standing.champion
    last = next((one for one in ledger.concepts.values() if one.version == champion), None)
    if last is None:
        return ""
    prompt = f"a photo of a <{last.name}> {last.class_noun}"
    program = sys.argv[0] if Path(sys.argv[0]).name == "l2dm" else "l2dm"
    words = ["generate", prompt, "--line", target.line, "--home", str(target.folder)]
    if target.base != BASE:
        words += ["--base", target.base]
    return shlex.join([program, *words, "--out", "pictures"])
