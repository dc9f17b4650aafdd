"""`l2dm presign`: what it prints uploads the pictures, from where there are no credentials."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from components.services.line import status_cache
from components.services.line.uploads import Uploads, fetched
from l2dm.uploads.folder import read_upload
from pipelines.commands.cli import app
from pipelines.dispatcher.dispatcher import DispatchPolicy
from tests.worlds.dispatch_world import World
from tests.worlds.object_stores import Bucket
from tests.worlds.uploads import pictures

NAMES = ("it's $mine.jpg", "a[1-3]{x,y}.png", "-d @b?c#d%20.webp")  # none is curl's or the shell's
WORDS = ("--line", "pets", "--concept", "rex", "--class-noun", "dog", "--set", "intake.min_side=8")


@pytest.fixture
def place(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    return f"s3://{bucket.name}/{bucket.prefix}"


def presign(place: str, folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["presign", str(folder), *WORDS, "--home", place, *more])


def send(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """By somebody without credentials, beside the pictures."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: what was printed was not sent")
    here = {"PATH": os.environ["PATH"]}
    command = ["sh", "-c", script]
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True)


def test_what_is_printed_is_an_upload_that_is_learned(
    place: str, bucket: Bucket, tmp_path: Path
) -> None:
    given = pictures(tmp_path / "in")
    for old, name in zip(("p00.jpg", "p01.png", "p02.webp"), NAMES, strict=True):
        (given / old).rename(given / name)
    with open(given / ".movie", "wb") as movie:  # hidden: neither looked at nor sent
        movie.truncate(10**12)
    done = presign(place, given)
    assert done.exit_code == 0, done.stderr
    assert bucket.secret not in done.stdout
    signed = presign(place, given, "--json").stdout
    assert all("Signature=" in one and "***" not in one for one in (done.stdout, signed))
    world = World(tmp_path / "world", place=place)
    assert world.dispatcher.look() == {}  # nothing was written
    sent = send(done.stdout, given)
    assert (sent.returncode, sent.stderr) == (0, "")
    uploads = Uploads(world.home.store, "pets")
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=10**6)
    assert len(read_upload(folder).pictures) == 3
    assert fetched(folder, "").digest == uploads.digest("rex")
    assert world.dispatcher.look() == {"pets": "started"}

    again = send(done.stdout, given)  # or another one's, of the same name
    assert again.returncode != 0 and "412" in again.stderr
    assert uploads.digest("rex") == fetched(folder, "").digest
    refused = presign(place, given)
    assert refused.exit_code == 2 and "taken (its upload is" in refused.stderr


def test_a_picture_that_is_another_one_ends_it_before_the_upload_is_one(
    place: str, bucket: Bucket, tmp_path: Path
) -> None:
    if bucket.kind == "moto":
        pytest.skip("moto checks no signatures; make test-integration asks radosgw")
    given = pictures(tmp_path / "in")
    done = presign(place, given)
    (given / "p01.png").write_bytes(b"shorter")
    sent = send(done.stdout, given)
    assert sent.returncode != 0 and "403" in sent.stderr
    world = World(tmp_path / "world", place=place)
    assert Uploads(world.home.store, "pets").waiting(()) == ()


def test_json_says_the_same_in_the_order_of_sending(place: str, tmp_path: Path) -> None:
    given = pictures(tmp_path / "in")
    (given / "p00.txt").write_text("in snow")  # said in concept.json, not sent
    (given / "p00.aae").write_text("x")
    done = presign(place, given, "--json", "--seconds", "60")
    assert "pets/rex: ignored, since they are no pictures: p00.aae" in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["line"], told["concept"], told["seconds"]) == ("pets", "rex", 60)
    *files, last = told["requests"]
    assert [one["file"] for one in files] == ["p00.jpg", "p01.png", "p02.webp"]
    for one, path in zip(files, sorted(given.glob("*[gp]")), strict=True):
        assert one["method"] == "PUT" and "X-Amz-Expires=60" in one["url"]
        assert one["headers"]["content-length"] == str(path.stat().st_size)
        assert "if-none-match" not in one["headers"]
    assert last["headers"]["if-none-match"] == "*"
    assert last["headers"]["content-length"] == str(len(last["body"].encode()))
    named = [one["name"] for one in json.loads(last["body"])["pictures"]]
    assert all(name in one["url"] for name, one in zip(named, files, strict=True))


def test_what_cannot_be_an_upload_is_refused_with_every_reason(place: str, tmp_path: Path) -> None:
    done = presign(place, pictures(tmp_path / "in", n=1), "--concept", "Rex!")
    assert done.exit_code == 2
    assert "try 'rex'" in done.stderr and "expected 3 to" in done.stderr
    small = pictures(tmp_path / "small")
    Image.new("RGB", (20, 24), (200, 30, 30)).save(small / "p01.png")
    done = presign(place, small)
    assert done.exit_code == 2 and "for a base that draws 64 x 64, found 20 x 24" in done.stderr
    done = presign(str(tmp_path / "home"), pictures(tmp_path / "three"))
    assert done.exit_code == 2
    assert "expected the state in s3://bucket/prefix, since nobody can send" in done.stderr


def test_the_place_of_an_upload_that_has_ended_is_not_given_away(
    place: str, tmp_path: Path
) -> None:
    given = pictures(tmp_path / "in")
    world = World(tmp_path / "world", DispatchPolicy(attempts=1), place)
    assert CliRunner().invoke(app, ["submit", str(given), *WORDS, "--home", place]).exit_code == 0
    world.dispatcher.look()
    (name,) = world.runs.running()
    world.runs.fail(name, None)
    world.dispatcher.look()
    assert world.states() == {"rex": "failed"}
    done = presign(place, given)
    assert done.exit_code == 2
    assert "its upload has ended, and only `l2dm submit` may replace that" in done.stderr


def promoted(world: World, given: Path, place: str) -> None:
    """Submit pictures and let the world learn them."""
    assert CliRunner().invoke(app, ["submit", str(given), *WORDS, "--home", place]).exit_code == 0
    world.dispatcher.look()
    world.finish()
    world.dispatcher.look()
    status_cache.refresh(world.home, world.registry, "pets")


def test_a_known_concept_is_taught_anew_by_what_is_printed_with_replace(
    place: str, tmp_path: Path
) -> None:
    given, better = pictures(tmp_path / "in"), pictures(tmp_path / "better", first=7)
    world = World(tmp_path / "world", place=place)
    world.home.store.write("lines/pets.json", b'{"aliases": {}, "versions": []}')
    refused = presign(place, better, "--replace")
    assert refused.exit_code == 2 and "--replace teaches it anew, found none" in refused.stderr
    assert CliRunner().invoke(app, ["submit", str(given), *WORDS, "--home", place]).exit_code == 0
    refused = presign(place, better, "--replace")
    assert refused.exit_code == 2  # it is not known yet
    world.dispatcher.look()
    world.finish()
    world.dispatcher.look()
    status_cache.refresh(world.home, world.registry, "pets")
    before = Uploads(world.home.store, "pets").digest("rex")
    refused = presign(place, better)
    assert refused.exit_code == 2 and "--replace teaches it anew" in refused.stderr
    (*_, last) = json.loads(presign(place, better, "--replace", "--json").stdout)["requests"]
    assert "if-match" in last["headers"] and json.loads(last["body"])["replaces"] is True

    sent = send(presign(place, better, "--replace").stdout, better)
    assert (sent.returncode, sent.stderr) == (0, "")
    uploads = Uploads(world.home.store, "pets")
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=10**6)
    found = fetched(folder, "")
    assert (found.digest != before, found.replaces) == (True, True)
    world.now += 601  # without an event it is found by a whole listing
    assert world.dispatcher.look() == {"pets": "started"}


def test_an_upload_that_came_while_it_was_looked_at_is_not_replaced(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, better = pictures(tmp_path / "in"), pictures(tmp_path / "better", first=7)
    world = World(tmp_path / "world", place=place)
    promoted(world, given, place)
    look = Uploads.digest

    def late(uploads: Uploads, name: str) -> str:
        found = look(uploads, name)
        world.home.store.write(f"inbox/pets/{name}/concept.json", b"of somebody else")
        return found

    monkeypatch.setattr(Uploads, "digest", late)
    done = presign(place, better, "--replace")
    assert done.exit_code == 2 and "somebody submits it at this moment" in done.stderr
    assert "if-match" not in done.stdout


def test_of_two_that_replace_one_upload_the_second_is_refused(place: str, tmp_path: Path) -> None:
    given = pictures(tmp_path / "in")
    world = World(tmp_path / "world", place=place)
    promoted(world, given, place)
    both = [pictures(tmp_path / str(at), first=7 * at) for at in (1, 2)]
    scripts = [presign(place, folder, "--replace").stdout for folder in both]
    assert send(scripts[0], both[0]).returncode == 0
    kept = Uploads(world.home.store, "pets").digest("rex")
    late = send(scripts[1], both[1])
    assert late.returncode != 0 and "412" in late.stderr
    assert Uploads(world.home.store, "pets").digest("rex") == kept
