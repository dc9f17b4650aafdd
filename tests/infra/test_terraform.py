"""The Terraform module for AWS, applied to moto: what is made, what it sends, who may do what."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from components.services.store.home import Home
from components.services.store.open import probe
from components.services.wakeups.events import Inbox, lines_of
from l2dm.doors import Concept
from l2dm.spec import IntakeSpec
from pipelines.commands.target import Target
from pipelines.commands.uploads.presign import signed_requests
from pipelines.commands.uploads.submit import submit_pictures
from tests.worlds.dispatch_world import World
from tests.worlds.object_stores import AT_HOME
from tests.worlds.uploads import pictures

MODULE = Path(__file__).parents[2] / "infra/aws"
PLUGINS = "L2DM_TERRAFORM_PLUGINS"  # environment: a folder with registry.terraform.io/...
REGION = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
CALLER = """
provider "aws" {{
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  s3_use_path_style           = true
  endpoints {{
    iam = "{endpoint}"
    s3  = "{endpoint}"
    sqs = "{endpoint}"
    sts = "{endpoint}"
  }}
}}

module "state" {{
  source = "{module}"
  bucket = "l2dm-test"
  prefix = "team/state"
  inbox_days = 90
  kubernetes = {{
    provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.example/id/1"
    issuer       = "oidc.example/id/1"
  }}
}}

output "made" {{
  value = module.state
}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def terraform(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    whole = ["terraform", f"-chdir={folder}", *command]
    return subprocess.run(whole, capture_output=True, text=True, env=environment)


def plugins() -> tuple[str, ...]:
    """Where the provider lies on this machine; nothing: Terraform asks its registry."""
    given = os.environ.get(PLUGINS)
    places = [Path(given)] if given else sorted(Path("/opt").glob("*"))
    known = [one for one in places if (one / "registry.terraform.io/hashicorp/aws").is_dir()]
    return tuple(f"-plugin-dir={one}" for one in known[:1])


def prepared(folder: Path) -> None:
    """Terraform with its provider in that folder, or a skip that says what is missing."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed: infra/aws was not looked at")
    done = terraform(folder, "init", "-input=false", "-no-color", *plugins())
    if done.returncode:
        pytest.skip(f"no AWS provider (a folder with it: {PLUGINS}): {done.stderr[-300:]}")


def test_the_module_is_formatted_and_valid(tmp_path: Path) -> None:
    folder = tmp_path / "module"
    shutil.copytree(MODULE, folder, ignore=shutil.ignore_patterns(".terraform*"))
    prepared(folder)
    assert terraform(folder, "fmt", "-check").stdout == ""
    done = terraform(folder, "validate", "-no-color")
    assert done.returncode == 0 and "Warning: " not in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The module's outputs after an apply, and moto's address as `endpoint`."""
    folder = tmp_path_factory.mktemp("aws")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        (folder / "main.tf").write_text(CALLER.format(endpoint=endpoint, module=MODULE))
        prepared(folder)
        done = terraform(folder, "apply", "-auto-approve", "-input=false", "-no-color")
        assert done.returncode == 0, done.stderr
        told = json.loads(terraform(folder, "output", "-json").stdout)["made"]["value"]
        require_tls_only(administrator(endpoint, "s3"))
        yield {**told, "endpoint": endpoint}
    finally:
        server.stop()


def administrator(endpoint: str, service: str) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", **keys)


def require_tls_only(s3: Any) -> None:
    """See that a request without TLS is refused; moto knows no other, so the rule goes then."""
    with pytest.raises(ClientError, match="Forbidden"):
        s3.put_object(Bucket="l2dm-test", Key="team/state/probe/open", Body=b"")
    policy = json.loads(s3.get_bucket_policy(Bucket="l2dm-test")["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    s3.delete_bucket_policy(Bucket="l2dm-test")


@pytest.fixture
def aws(made: dict[str, Any]) -> Any:
    """A boto3 client of a service, as the administrator."""
    return lambda service: administrator(made["endpoint"], service)


def test_the_bucket_is_versioned_closed_and_cleans_up(aws: Any, made: dict[str, Any]) -> None:
    s3, bucket = aws("s3"), "l2dm-test"
    assert made["home"] == "s3://l2dm-test/team/state"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    rules = {
        rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    }
    assert rules["what-a-killed-upload-left"]["AbortIncompleteMultipartUpload"] == {
        "DaysAfterInitiation": 1
    }
    assert rules["old-uploads"]["Filter"]["Prefix"] == "team/state/inbox/"
    assert rules["old-uploads"]["Expiration"] == {"Days": 90}
    assert all("records" not in json.dumps(rule) for rule in rules.values())


def test_a_finished_upload_and_nothing_else_sends_a_message(aws: Any, made: dict[str, Any]) -> None:
    s3, sqs = aws("s3"), aws("sqs")
    for name in ("inbox/pets/rex/1.png", "records/pets/000001.json", "inbox/pets/rex/concept.json"):
        s3.put_object(Bucket="l2dm-test", Key=f"team/state/{name}", Body=b"{}")
    told = sqs.receive_message(QueueUrl=made["queue_url"], MaxNumberOfMessages=10)["Messages"]
    inbox = Inbox("l2dm-test", "team/state")
    lines = [lines_of(message["Body"], inbox) for message in told]
    assert [found for found in lines if found] == [{"pets"}]
    attributes = sqs.get_queue_attributes(QueueUrl=made["queue_url"], AttributeNames=["All"])
    redrive = json.loads(attributes["Attributes"]["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith("l2dm-uploads-dead")
    s3.delete_object(Bucket="l2dm-test", Key="team/state/inbox/pets/rex/concept.json")
    s3.delete_object(Bucket="l2dm-test", Key="team/state/records/pets/000001.json")


def test_service_accounts_get_their_role_and_no_other(aws: Any, made: dict[str, Any]) -> None:
    iam = aws("iam")
    assert set(made["role_arns"]) == {"dispatcher", "step"}
    for name in made["role_arns"]:
        trust = iam.get_role(RoleName=f"l2dm-{name}")["Role"]["AssumeRolePolicyDocument"]
        assert f"system:serviceaccount:l2dm:l2dm-{name}" in json.dumps(trust)
        attached = iam.list_attached_role_policies(RoleName=f"l2dm-{name}")["AttachedPolicies"]
        assert [one["PolicyArn"] for one in attached] == [made["policy_arns"][name]]


def test_events_are_only_ever_appended_and_by_whom_it_is_needed(
    aws: Any, made: dict[str, Any]
) -> None:
    """AWS looks at the condition, moto does not: a write that may go over an object is refused."""
    iam, appends = aws("iam"), dict[str, list[Any]]()
    for name, policy in made["policy_arns"].items():
        version = iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"]
        found = iam.get_policy_version(PolicyArn=policy, VersionId=version)["PolicyVersion"]
        for statement in found["Document"]["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            assert "*" not in actions and not str(resources).endswith("team/state/*")
            if "records" in str(resources):
                assert not any("Delete" in action for action in actions)
                if "s3:PutObject" in actions:
                    appends.setdefault(name, []).append(statement.get("Condition"))
    only = [{"Null": {"s3:if-none-match": "false"}}]
    assert appends == {"dispatcher": only, "step": only}


@pytest.fixture
def identities(aws: Any, made: dict[str, Any]) -> Iterator[Mapping[str, Mapping[str, str]]]:
    """Keys of a user per policy; from here on moto asks for rights."""
    iam, keys = aws("iam"), {}
    for name, policy in made["policy_arns"].items():
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys[name] = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    ask(made["endpoint"], "0")
    yield keys
    ask(made["endpoint"], "inf")


def ask(endpoint: str, after: str) -> None:
    """Let moto check rights after so many requests."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after.encode(), plain)
    urllib.request.urlopen(request, timeout=5).close()


def test_each_identity_can_do_its_work_and_none_can_delete_a_record(
    identities: Mapping[str, Mapping[str, str]],
    made: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**AT_HOME, **REGION, "AWS_ENDPOINT_URL": made["endpoint"]}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))

    def become(identity: str) -> None:
        for name, value in identities[identity].items():
            monkeypatch.setenv(name, value)

    become("uploader")
    place, given = made["home"], pictures(tmp_path / "in")
    spec = IntakeSpec(min_side=8)
    submit_pictures(Home.at(place), given, "pets", Concept("rex", "dog"), spec)
    more, where = pictures(tmp_path / "more", first=10), Target(place, "pets", "pocket")
    requests, _ = signed_requests(where, more, Concept("milo", "dog"), spec, 60)
    assert len(requests) == 4

    become("dispatcher")
    world = World(tmp_path / "world", place=place)
    probe(world.home.store)
    assert world.dispatcher.look() == {"pets": "started"}

    become("step")
    (name,) = world.runs.running()
    world.runs.jobs[name] = replace(world.runs.jobs[name], home=Home.at(place))
    world.finish()

    become("dispatcher")
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.states() == {"rex": "promoted"}
    assert "submitted" not in world.kinds()  # an uploader may not say so; it was found

    refused = {
        "uploader": [
            ("get_object", "leases/pets.json"),
            ("put_object", "leases/pets.json"),
            ("put_object", "records/pets/000099.json"),
        ],
        "step": [
            ("put_object", "leases/pets.json"),
            ("delete_object", "inbox/pets/rex/p00.jpg"),
            ("put_object", "bases/sd15/model_index.json"),
        ],
        "dispatcher": [],  # it takes the name of a half upload with a concept.json of its own
    }
    for identity, attempts in refused.items():
        become(identity)
        s3 = boto3.Session().client("s3")  # the default session would keep the first keys
        for call, key in [*attempts, ("delete_object", "records/pets/000001.json")]:
            with pytest.raises(ClientError, match="AccessDenied"):
                getattr(s3, call)(Bucket="l2dm-test", Key=f"team/state/{key}")
