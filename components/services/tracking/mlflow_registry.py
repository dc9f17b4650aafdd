"""The registry in MLflow. Importing mlflow costs over a second: a constructor does it."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from components.services.store.home import Home
from components.services.tracking import home_files, served
from components.services.tracking.connection import connect, experiment, server, told
from components.services.tracking.erasing import Eraser, model_id
from components.services.tracking.left_files import RELEASE, versions_in, write_facts
from components.services.tracking.registry import (
    ALIASES,
    Alias,
    Version,
    VersionFacts,
    VersionState,
    copy_release,
    require_version,
    told_of,
    version_of,
)
from components.services.tracking.runs import run_of, runs_of
from l2dm import escape
from l2dm.doors import SIGNS, closed_by, marked
from l2dm.errors import Corrupt, FilesGone, TrackingFailed, words
from l2dm.files import manifest

log = logging.getLogger(__name__)
T = TypeVar("T")
PREFIX = "l2dm."
TAG = "l2dm.facts"
STATE = "l2dm.state"  # what became of a version, or of the run of a task
DESCRIBED = 4900  # characters: the column of MLflow's database holds 5000
SHARING = 3  # versions: the newest takes files of the one before the last
PAGE = 1000  # registered models of one request, MLflow's most


class MlflowRegistry:
    """Registered model `l2dm.<line>`; one logged pyfunc model per version holds the release.

    `model_code` is the file that mlflow executes to serve a version (models from code).
    """

    def __init__(self, home: Home, base: str, model_code: Path) -> None:
        self.home, self.base, self.model_code = home, base, model_code
        self._mlflow = connect(home)
        self._client = self._mlflow.MlflowClient()

    def lines(self) -> tuple[str, ...]:
        """See Registry."""
        return tuple(sorted(self.every_alias()))

    def register(self, line: str, release: Path, facts: VersionFacts) -> int:
        """See Registry. Tags are set in the call that creates the version: no half version."""
        known = version_of(self.versions(line), facts.task)
        if known is not None:
            return known
        with told(f"register a version of line {line!r}"):
            model = self._logged(line, facts) or self._log(line, release, facts)
            self._ensure_model(line)
            self._create(line, model, facts)
        number = self._only_version(line, facts.task)
        if server() is None:
            self._share_files(line, number)
        return number

    def _share_files(self, line: str, number: int) -> None:
        """Disk space alone is at stake, so no trouble with it ends a registration."""
        try:
            there = [one.number for one in self.versions(line) if one.number <= number]
            if len(there) < SHARING:
                return
            with told(f"find the files of line {line!r}"):
                former, last, new = (self._files(line, one) for one in there[-SHARING:])
            home_files.share(new, last, former)
        except (TrackingFailed, OSError) as error:
            log.debug("version %d of line %s keeps its own files: %s", number, line, words(error))

    def _files(self, line: str, version: int) -> Path:
        """Folder of a version's logged model in a state folder."""
        found = self._client.get_model_version(PREFIX + line, str(version))
        model = self._client.get_logged_model(model_id(found))
        return home_files.folder_of(self.home, model.artifact_location, line)

    def adopt(self, line: str, lost: Mapping[int, str]) -> tuple[int, ...]:
        """See Registry. A server's files are not looked through: its database has backups."""
        if server() is not None or not lost:
            return ()
        left = {facts.task: (model, facts) for model, facts in versions_in(self._models(line))}
        adopted = []
        for number, task in sorted(lost.items()):
            if task not in left:
                continue
            folder, facts = left[task]
            with told(f"register version {number} of line {line!r} again"):
                self._ensure_model(line)
                model = self._log(line, folder / RELEASE, facts)
                if not self._create_as(number, line, model, facts):
                    break
            log.warning("line %s: version %d was lost and is registered again", line, number)
            adopted.append(number)
            shutil.rmtree(folder.parent, ignore_errors=True)  # its copy is the version's now
        return tuple(adopted)

    def _create_as(self, number: int, line: str, model: str, facts: VersionFacts) -> bool:
        """Use up the numbers before this one: MLflow never goes back. False when it is past it."""
        while True:
            made = self._create(line, model, facts)
            if made == number:
                return True
            self._remove(line, made)
            if made > number:
                return False

    def _create(self, line: str, model: str, facts: VersionFacts) -> int:
        made = self._client.create_model_version(
            PREFIX + line,
            source=f"models:/{model}",
            model_id=model,
            tags={
                TAG: json.dumps(manifest.to_data(facts)),
                "l2dm.task": facts.task,
                "l2dm.closed_by": ", ".join(closed_by(facts.findings)),
            },
            description=_description(facts),
        )
        return int(made.version)

    def _models(self, line: str) -> Path:
        """Where the logged models of a line lie in a state folder."""
        return self.home.artifacts / line / "models"

    def versions(self, line: str) -> tuple[Version, ...]:
        """See Registry."""
        with told(f"list the versions of line {line!r}"):
            found = self._client.search_model_versions(f"name = '{PREFIX}{line}'")
        ours = [one for one in found if TAG in one.tags]
        versions = [Version(int(one.version), _facts(line, one)) for one in ours]
        return tuple(sorted(versions, key=lambda version: version.number))

    def aliases(self, line: str) -> Mapping[Alias, int]:
        """See Registry. `search_model_versions` returns no aliases, so models are asked for."""
        with told(f"list the aliases of line {line!r}"):
            models = self._client.search_registered_models(f"name = '{PREFIX}{line}'")
        return _aliases(models[0]) if models else {}

    def every_alias(self) -> Mapping[str, Mapping[Alias, int]]:
        """See Registry."""
        found: dict[str, Mapping[Alias, int]] = {}
        token: str | None = None
        while True:
            with told("list the registered models"):
                page = self._client.search_registered_models(max_results=PAGE, page_token=token)
            ours = [model for model in page if model.name.startswith(PREFIX)]
            found |= {model.name.removeprefix(PREFIX): _aliases(model) for model in ours}
            token = page.token
            if not token:
                return found

    def set_alias(self, line: str, alias: Alias, version: int) -> None:
        """See Registry. The first creation of an alias can race in the store and is tried again."""
        require_version(self, line, version)
        with told(f"set alias {alias} of line {line!r}"):
            self._retry(
                lambda: self._client.set_registered_model_alias(PREFIX + line, alias, str(version))
            )

    def drop_alias(self, line: str, alias: Alias) -> None:
        """See Registry."""
        if alias in self.aliases(line):
            with told(f"drop alias {alias} of line {line!r}"):
                self._client.delete_registered_model_alias(PREFIX + line, alias)

    def erase(self, line: str, versions: Sequence[int], names: Callable[[str], bool]) -> None:
        """See Registry."""
        with told(f"erase versions {list(versions)} of line {line!r}"):
            Eraser(self.home, self._mlflow, line, names).erase(versions)

    def fetch(self, line: str, version: int, to: Path) -> Path:
        """See Registry."""
        require_version(self, line, version)
        with told(f"fetch version {version} of line {line!r}"):
            if server() is None:
                folder = self._files(line, version)
                what = f"files of version {version} of line {line!r}"
                there = home_files.present(folder / RELEASE, self._models(line), what)
                return copy_release(there, to)
            found = self._client.get_model_version(PREFIX + line, str(version))
            with tempfile.TemporaryDirectory() as scratch:
                return copy_release(self._download(line, found, Path(scratch)) / RELEASE, to)

    def tell(
        self,
        line: str,
        champion: int,
        known: Mapping[str, int],
        lost: Mapping[str, int],
        states: Mapping[int, VersionState],
    ) -> None:
        """See Registry: the model's description, and a tag on every version and on its run."""
        name, text = PREFIX + line, told_of(champion, known, lost)
        text = text if len(text) <= DESCRIBED else f"**Champion: version {champion}.**"
        with told(f"describe line {line!r}"):
            for model in self._client.search_registered_models(f"name = '{name}'"):
                if model.description != text:
                    self._client.update_registered_model(name, text)
            for version in self._client.search_model_versions(f"name = '{name}'"):
                state = states.get(int(version.version))
                if state and version.tags.get(STATE) != state:
                    self._client.set_model_version_tag(name, version.version, STATE, state)
                    task = version.tags.get("l2dm.task", "")
                    for run in runs_of(self._client, line, task):
                        self._client.set_tag(run.info.run_id, STATE, state)

    def _download(self, line: str, version: Any, scratch: Path) -> Path:
        """The files of a version from a server. Raises FilesGone when it says that it has none."""
        try:
            found = Path(
                self._mlflow.artifacts.download_artifacts(version.source, dst_path=str(scratch))
            )
            if (found / RELEASE).is_dir():
                return found
        except (self._mlflow.exceptions.MlflowException, OSError) as error:
            if not _says_missing(error):
                raise
        # a server whose disk is not mounted, or whose bucket is another one, lists nothing either
        others = self._client.search_model_versions(f"name = '{PREFIX}{line}'")
        what = f"files of version {version.version} of line {line!r}"
        if any(self._has_files(one) for one in others):
            raise FilesGone(f"expected {what} at {server()}, found none; it has those of others")
        raise TrackingFailed(
            f"expected {what} at {server()}, found that it has no file of the line at all; see "
            "that its store of artifacts is there, and is the right one"
        )

    def _has_files(self, version: Any) -> bool:
        """Whether the server lists files of a version, or of the run that made it."""
        if version.run_id and self._client.list_artifacts(version.run_id):
            return True
        return bool(self._client.list_logged_model_artifacts(model_id(version)))

    def _only_version(self, line: str, task: str) -> int:
        """The version of a task that was just made. Any later one of that task is removed.

        A second one comes from another run of the task, or from a request that the client sent
        again because its answer was lost.
        """
        made = [one.number for one in self.versions(line) if one.facts.task == task]
        with told(f"remove doubled versions of task {task}"):
            for number in made[1:]:
                self._remove(line, number)
        return made[0]

    def _remove(self, line: str, number: int) -> None:
        try:
            self._client.delete_model_version(PREFIX + line, str(number))
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # the other run removed it
                raise

    def _ensure_model(self, line: str) -> None:
        try:
            self._client.create_registered_model(PREFIX + line)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged(self, line: str, facts: VersionFacts) -> str | None:
        """A model that was logged whole before a kill, not yet registered."""
        found = self._client.search_logged_models(
            [experiment(self._mlflow, self.home, line)],
            filter_string=f"tags.`l2dm.digest` = '{facts.digest}'",
        )
        ready = (m for m in found if str(m.status) == "READY" and m.tags["l2dm.task"] == facts.task)
        return next((str(model.model_id) for model in ready), None)

    def _log(self, line: str, release: Path, facts: VersionFacts) -> str:
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        run = run_of(self._mlflow, self.home, line, facts.task)
        model = self._client.create_logged_model(
            experiment(self._mlflow, self.home, line),
            name="release",
            source_run_id=run,
            tags={"l2dm.digest": facts.digest, "l2dm.task": facts.task},
            params=self._client.get_run(run).data.params,
        )
        self._client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        with tempfile.TemporaryDirectory() as scratch:
            # a file keeps its folder's name inside the logged model, so the folder gets one first
            named = copy_release(release, Path(scratch) / "release")
            wheel, wheel_sha256 = served.write_wheel(Path(scratch))
            self._mlflow.pyfunc.save_model(
                Path(scratch) / "model",
                python_model=str(self.model_code),
                artifacts={"release": str(named), "wheel": str(wheel)},
                model_config={"base": self.base, "wheel_sha256": wheel_sha256},
                mlflow_model=Model(model_id=model.model_id, model_uuid=model.model_id, run_id=run),
                signature=served.signature(),
                pip_requirements=served.requirements(),
            )
            _leave_out_machine(Path(scratch) / "model")
            write_facts(Path(scratch) / "model", facts)
            self._client.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def _retry(self, call: Callable[[], T], attempts: int = 5) -> T:
        for attempt in range(attempts):
            try:
                return call()
            except self._mlflow.exceptions.MlflowException as error:
                if attempt == attempts - 1 or error.error_code not in (
                    "BAD_REQUEST",
                    "INTERNAL_ERROR",
                    "TEMPORARILY_UNAVAILABLE",
                ):
                    raise
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")


def _says_missing(error: Exception) -> bool:
    """Whether a server answers that something does not exist, rather than that it cannot look."""
    response = getattr(error, "response", None)
    if response is not None:
        return bool(response.status_code == 404)
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def _leave_out_machine(model: Path) -> None:
    """Take paths of this machine out of the description of a model: MLflow reads none of them."""
    from mlflow.models import Model

    described = Model.load(str(model))
    flavor = described.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for one in flavor["artifacts"].values():
        one["uri"] = one["path"]
    described.save(str(model / "MLmodel"))


def _facts(line: str, version: Any) -> VersionFacts:
    try:
        facts: VersionFacts = manifest.from_data(VersionFacts, json.loads(version.tags[TAG]))
        return facts
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"expected tag {TAG} of version {version.version} of {PREFIX}{line} in MLflow as it "
            f"was registered, found something else ({error}); set it back, others show its form"
        ) from error


def _aliases(model: Any) -> dict[Alias, int]:
    return {alias: int(model.aliases[alias]) for alias in ALIASES if alias in model.aliases}


def _description(facts: VersionFacts) -> str:
    """In Markdown, in whole lines: MLflow shows it so."""
    text = (
        f"**{escape.markdown(facts.concept)}** ({escape.markdown(facts.class_noun)}), "
        f"task {facts.task}, learned from version {facts.parent_version}. "
        f"Gate: {facts.verdict}.\n"
    )
    for passed, reason in marked(facts.reasons, facts.findings):
        line = f"\n* {SIGNS[passed]}{escape.markdown(reason)}"
        if len(text) + len(line) > DESCRIBED:
            return text + "\n* …"
        text += line
    return text
