"""What kustomize renders, checked offline: fields, references, rights, and that names fit."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from components.services.wakeups.events import Inbox, lines_of
from pipelines.commands.cli import app
from pipelines.places.compilation import compile_pipelines
from pipelines.places.settings import parse

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "infra/cluster"
OVERLAYS = ("overlays/dev", "overlays/production")
RENDERED = (*OVERLAYS, "examples/argo-events")
VERSIONS = ("1.25", "1.37")  # of Kubernetes: the lowest and the highest we say we support
SECRETS = {"l2dm-s3", "l2dm-mlflow", "l2dm-webhook"}  # made by hand, docs/operations.md
OPERATIONS = (ROOT / "docs/operations.md").read_text()

Document = dict[str, Any]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: no manifest was rendered"
)


@cache
def render(folder: str) -> tuple[Document, ...]:
    command = ["kubectl", "kustomize", str(CLUSTER / folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, kind: str) -> list[Document]:
    return [document for document in render(folder) if document["kind"] == kind]


def check(document: Document, version: str) -> None:
    """Raises ValidationError, or LookupError for a kind that nobody described."""
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: nothing was validated"
    )
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        name = f"{document['apiVersion'].replace('/', '-')}-{document['kind']}.json"
        path = CLUSTER / "schemas" / name
        if not path.is_file():
            raise LookupError(
                f"expected {document['kind']} to be of Kubernetes {version} or described in "
                f"{path.relative_to(ROOT)}, found neither"
            ) from None
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", RENDERED)
def test_every_document_is_valid(folder: str, version: str) -> None:
    documents = render(folder)
    for document in documents:
        check(document, version)
    assert len(documents) == (2 if folder.startswith("examples") else 21 - 2 * ("dev" in folder))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_field_and_an_unknown_kind_are_found(version: str) -> None:
    (deployment,) = of_kind("overlays/dev", "Deployment")
    misspelled = json.loads(json.dumps(deployment).replace("runAsNonRoot", "runAsNonroot"))
    with pytest.raises(jsonschema.ValidationError, match="runAsNonroot"):
        check(misspelled, version)
    with pytest.raises(LookupError, match="Rollout"):
        check({**deployment, "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}, version)
    (monitor,) = of_kind("overlays/dev", "ServiceMonitor")
    wrong = json.loads(json.dumps(monitor).replace("interval", "intervall"))
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        check(wrong, version)


def test_every_schema_of_ours_is_used_and_is_one() -> None:
    kinds = {
        f"{one['apiVersion'].replace('/', '-')}-{one['kind']}"
        for folder in RENDERED
        for one in render(folder)
    }
    for path in (CLUSTER / "schemas").iterdir():
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
        assert path.stem in kinds


@pytest.mark.parametrize("folder", OVERLAYS)
def test_everything_lies_in_one_namespace(folder: str) -> None:
    (namespace,) = of_kind(folder, "Namespace")
    name = namespace["metadata"]["name"]
    others = [one["metadata"].get("namespace") for one in render(folder) if one is not namespace]
    assert set(others) == {name}


def names(folder: str, kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in of_kind(folder, kind)}


def walk(value: Any, key: str) -> Iterator[Any]:
    """Every value under that key, at any depth."""
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from walk(one, key)


@pytest.mark.parametrize("folder", OVERLAYS)
def test_what_is_referred_to_is_there(folder: str) -> None:
    (deployment,) = of_kind(folder, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] in names(folder, "ServiceAccount")
    maps = {one["name"] for key in ("configMapRef", "configMap") for one in walk(pod, key)}
    assert len(maps) == 2 and maps <= names(folder, "ConfigMap")
    secrets = {one["name"] for one in walk(pod, "secretKeyRef")}
    assert secrets == SECRETS
    (container,) = pod["containers"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}
    for binding in of_kind(folder, "RoleBinding"):
        assert binding["roleRef"]["name"] in names(folder, "Role")
        assert {one["name"] for one in binding["subjects"]} <= names(folder, "ServiceAccount")


@pytest.mark.parametrize("folder", OVERLAYS)
def test_selectors_find_the_dispatcher_and_ports_have_names(folder: str) -> None:
    (deployment,) = of_kind(folder, "Deployment")
    (service,) = of_kind(folder, "Service")
    (monitor,) = of_kind(folder, "ServiceMonitor")
    (budget,) = of_kind(folder, "PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
    ):
        assert selector and selector.items() <= labels.items()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert {one["targetPort"] for one in service["spec"]["ports"]} <= set(ports)
    monitored = {one["port"] for one in monitor["spec"]["endpoints"]}
    assert monitored <= {one["name"] for one in service["spec"]["ports"]}
    listened = next(arg for arg in container["args"] if arg.startswith("--listen"))
    assert listened.endswith(f":{ports['http']}")


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_dispatcher_is_nobody_and_writes_nowhere(folder: str) -> None:
    (deployment,) = of_kind(folder, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
    (token,) = walk(pod, "serviceAccountToken")
    assert token["audience"] == "pipelines.kubeflow.org"


@pytest.mark.parametrize("folder", OVERLAYS)
def test_rights_are_few_and_no_secret_has_a_value(folder: str) -> None:
    assert not {"Secret", "ClusterRole", "ClusterRoleBinding"} & {
        document["kind"] for document in render(folder)
    }
    for role in of_kind(folder, "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] and rule["verbs"] == ["get"]
    (dispatcher,) = (one for one in of_kind(folder, "Role") if "dispatcher" in str(one["metadata"]))
    groups = {group for rule in dispatcher["rules"] for group in rule["apiGroups"]}
    assert groups == {"pipelines.kubeflow.org"}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_a_run_gets_a_token_for_kubeflows_programs_and_no_right_that_they_do_not_need(
    folder: str, tmp_path: Path
) -> None:
    """A pod that says nothing of its token is given one unless its ServiceAccount says false."""
    accounts = {one["metadata"]["name"]: one for one in of_kind(folder, "ServiceAccount")}
    assert accounts["l2dm-step"].get("automountServiceAccountToken", True) is True
    assert accounts["l2dm-dispatcher"]["automountServiceAccountToken"] is False
    for path in compile_pipelines(tmp_path, parse({"image": f"l2dm@sha256:{'0' * 64}"})):
        assert "automountServiceAccountToken" not in path.read_text()
    (role,) = (one for one in of_kind(folder, "Role") if one["metadata"]["name"] == "l2dm-step")
    rights = {
        (resource, verb, *rule.get("resourceNames", ()))
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        ("workflowtaskresults", "create"),
        ("workflowtaskresults", "patch"),
        ("pods", "get"),
        ("configmaps", "get", "kfp-launcher"),
        ("secrets", "get", "mlpipeline-minio-artifact"),
    }


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_deployments_command_is_one_of_ours(folder: str) -> None:
    """Flags exist, and what they take from the environment is in the ConfigMap."""
    (deployment,) = of_kind(folder, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    program, command, *flags = container["args"]
    assert program == "l2dm"
    known = typer.main.get_command(app).commands[command]
    options = {name for parameter in known.params for name in parameter.opts}
    assert {flag.partition("=")[0] for flag in flags} <= options
    (given,) = (
        one["data"]
        for one in of_kind(folder, "ConfigMap")
        if one["metadata"]["name"].startswith("l2dm-dispatcher")
    )
    for name in re.findall(r"\$\((\w+)\)", " ".join(flags)):
        assert float(given[name]) > 0
    assert "CHANGE" not in json.dumps(given)


@pytest.mark.slow
@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_pipelines_compile_with_the_settings_of_steps(folder: str, tmp_path: Path) -> None:
    (text,) = (
        one["data"]["l2dm.toml"]
        for one in of_kind(folder, "ConfigMap")
        if one["metadata"]["name"].startswith("l2dm-settings")
    )
    found = parse(tomllib.loads(text))
    assert set(found.secrets) <= SECRETS
    claims = {volume.claim for volume in (found.bases, found.scratch) if volume}
    assert claims <= names(folder, "PersistentVolumeClaim")
    account = found.cluster.service_account
    assert not account or account in names(folder, "ServiceAccount")
    for path in compile_pipelines(tmp_path, found):
        assert found.image in path.read_text()


def test_every_secret_is_explained() -> None:
    for secret in SECRETS:
        assert f"create secret generic {secret}" in OPERATIONS


def commands_after(words: str) -> str:
    """The first block of commands behind these words of the runbook."""
    block = OPERATIONS.split(words, 1)[1].split("```")[1]
    return "\n".join(line.strip() for line in block.splitlines())


def carried_out(commands: str, folder: Path, **environment: str) -> list[list[str]]:
    """What a shell that takes no unset variable calls, in order; the programs do nothing."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("kubectl", "aws", "pg_dump", "pg_restore", "openssl"):
        path = programs / name
        path.write_text(
            '#!/bin/sh\n{ printf "%s\\n" "${0##*/}" "$@"; echo; } >> "$CALLS"\n'
            '[ "${0##*/}" != openssl ] || echo random\n'
        )
        path.chmod(0o755)
    search = f"{programs}:{os.environ['PATH']}"
    known = {"PATH": search, "CALLS": str(folder / "calls"), **environment}
    done = subprocess.run(["sh", "-eu", "-c", commands], env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [call.split("\n") for call in (folder / "calls").read_text().strip().split("\n\n")]


def test_secrets_are_made_in_a_namespace_that_is_there(tmp_path: Path) -> None:
    calls = carried_out(f"cd {ROOT}\n{commands_after('**Namespace and Secrets**')}", tmp_path)
    (apply, *secrets) = (call for call in calls if call[0] == "kubectl")
    assert apply[1:3] == ["apply", "-f"]
    (namespace,) = yaml.safe_load_all((ROOT / apply[3]).read_text())
    assert namespace["kind"] == "Namespace"
    assert {call[6] for call in secrets} == SECRETS
    assert all(call[2] == namespace["metadata"]["name"] for call in secrets)
    assert "--from-literal=token=random" in secrets[0]
    assert "--from-literal=authorization=Bearer random" in secrets[0]


def test_the_backup_takes_mlflows_own_address_of_its_database(tmp_path: Path) -> None:
    given = re.findall(r"MLFLOW_DATABASE: (\S+?):", (ROOT / "infra/local/compose.yaml").read_text())
    address = f"{given[0]}://mlflow:pw@postgres/mlflow"
    where = {"MLFLOW_DATABASE": address, "L2DM_HOME": "s3://team/state"}
    calls = carried_out(commands_after("**Backup**"), tmp_path, **where)
    assert [call[0] for call in calls] == ["pg_dump", "aws", "aws"]
    assert calls[0][-1] == "postgresql://mlflow:pw@postgres/mlflow"


def test_an_overlay_for_a_store_of_ones_own_opens_its_port_and_hands_steps_its_keys(
    tmp_path: Path,
) -> None:
    """As docs/operations.md has it: a component, and what stands in l2dm.toml as a comment."""
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    overlay = tmp_path / "cluster/overlays/yours"
    shutil.copytree(CLUSTER / "overlays/production", overlay)
    with open(overlay / "kustomization.yaml", "a") as file:
        file.write("components:\n  - ../../components/own-store\n")
    command = ["kubectl", "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened = {}
    for one in yaml.safe_load_all(done.stdout):
        check(one, VERSIONS[-1])
        if one["kind"] == "NetworkPolicy":
            rules = [rule for rule in one["spec"].get("egress", ()) if "to" not in rule]
            ports = {port["port"] for rule in rules for port in rule["ports"]}
            opened[one["metadata"]["name"]] = 9000 in ports
    assert [name for name, is_open in sorted(opened.items()) if is_open] == [
        "l2dm-dispatcher-egress",
        "l2dm-step-egress",
    ]
    text = (overlay / "l2dm.toml").read_text()
    for line in ("AWS_ENDPOINT_URL", "[secrets.l2dm-s3]", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACC"):
        assert text.count(f"# {line}") == 1
        text = text.replace(f"# {line}", line)
    settings = parse(tomllib.loads(text))
    assert set(settings.secrets["l2dm-s3"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert settings.environment["AWS_ENDPOINT_URL"].endswith(":9000")


def test_production_replaces_what_is_only_for_trying() -> None:
    (deployment,) = of_kind("overlays/production", "Deployment")
    assert deployment["spec"]["replicas"] == 2
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "@sha256:" in container["image"]


def test_the_sensors_message_wakes_the_line() -> None:
    """Built as Argo Events builds it: the event's data, its `notification`, raw, as `Records`."""
    (sensor,) = of_kind("examples/argo-events", "Sensor")
    (source,) = of_kind("examples/argo-events", "EventSource")
    ((name, minio),) = source["spec"]["minio"].items()
    (dependency,) = sensor["spec"]["dependencies"]
    assert (dependency["eventSourceName"], dependency["eventName"]) == (
        source["metadata"]["name"],
        name,
    )
    assert minio["filter"]["suffix"] == "/concept.json"
    key = f"{minio['filter']['prefix']}pets/rex{minio['filter']['suffix']}"
    record = {
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": minio["bucket"], "object": {"key": key.replace("/", "%2F")}},
    }
    event = {"notification": [record]}
    (trigger,) = sensor["spec"]["triggers"]
    (payload,) = trigger["template"]["http"]["payload"]
    body = {payload["dest"]: event[payload["src"]["dataKey"]]}
    inbox = Inbox("l2dm-production", "state")
    assert lines_of(json.dumps(body), inbox) == {"pets"}
