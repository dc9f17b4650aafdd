"""l2dm.toml: read whole, or refused with everything that is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from l2dm.errors import BadSettings
from pipelines.places.settings import (
    Cluster,
    Docker,
    Gpu,
    Retry,
    Settings,
    StepSettings,
    Toleration,
    Volume,
    cores,
    load,
    parse,
    size,
    to_json,
)

EXAMPLE = Path(__file__).parents[3] / "docs" / "l2dm.toml"


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        parse(data)
    return list(caught.value.problems)


def test_the_example_is_read_whole_and_survives_the_way_to_another_process() -> None:
    settings = load(EXAMPLE)
    assert settings.cluster.namespace == "team-vision"
    assert settings.secrets["l2dm-s3"]["AWS_ACCESS_KEY_ID"] == "access_key"
    assert parse(json.loads(to_json(settings))) == settings
    assert parse({}) == Settings()


def test_every_key_is_in_the_reference() -> None:
    text = (EXAMPLE.parent / "cluster.md").read_text()
    kinds = (Settings, StepSettings, Gpu, Retry, Toleration, Volume, Cluster, Docker)
    keys = {name for kind in kinds for name in kind.model_fields}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_a_step_has_its_own_values_over_the_defaults() -> None:
    step = load(EXAMPLE).step("train")
    assert (step.gpu, step.timeout, step.memory_limit) == (Gpu(count=2), 14400, "32Gi")
    assert step.retry == Retry(times=2)  # of the defaults
    assert load(EXAMPLE).step("never heard of") == load(EXAMPLE).defaults


def test_collections_of_defaults_and_step_add_up() -> None:
    taint = {"key": "a"}
    settings = parse(
        {
            "defaults": {
                "environment": {"A": "1", "B": "1"},
                "node_selector": {"zone": "x"},
                "tolerations": [taint],
            },
            "steps": {"train": {"environment": {"B": "2"}, "tolerations": [{"key": "b"}]}},
        }
    )
    step = settings.step("train")
    assert step.environment == {"A": "1", "B": "2"}
    assert step.node_selector == {"zone": "x"}
    assert [one.key for one in step.tolerations] == ["a", "b"]
    assert settings.step("evaluate").environment == {"A": "1", "B": "1"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"cluster": {"hots": ""}},
            "l2dm.toml has no key 'cluster.hots'; nearest known key: cluster.host",
        ),
        (
            {"steps": {"train": {"shmm": "1Gi"}}},
            "has no key 'steps.train.shmm'; nearest known key: steps.train.shm",
        ),
        (
            {"defaults": {"tolerations": [{"kee": "a", "operator": "Exists"}]}},
            "'defaults.tolerations[0].kee'; nearest known key: defaults.tolerations[0].key",
        ),
        ({"steps": {"train": 3}}, "steps.train: expected a table, found 3"),
        ({"steps": {"train": {"tolerations": {}}}}, "expected a list, found {}"),
        ({"bases": {"claim": "x"}}, "bases.mount: expected a value, found none"),
        ({"bases": {"claim": "", "mount": "/b"}}, "bases.claim: expected the name"),
        ({"scratch": {"claim": "x", "mount": "/"}}, "scratch.mount: expected an absolute path"),
        ({"image": "l2dm:latest"}, "image: expected name@sha256:<64 digits>"),
        ({"environment": {"A B": ""}}, "environment.A B: expected letters"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "expected no secret here"),
        ({"steps": {"t": {"environment": {"HF_TOKEN": "x"}}}}, "steps.t.environment.HF_TOKEN"),
        ({"steps": {"t": {"environment": {"MY_TOKEN": "x"}}}}, "steps.t.environment.MY_TOKEN"),
        ({"environment": {"WANDB_API_KEY": "x"}}, "environment.WANDB_API_KEY: expected no secret"),
        ({"environment": {"apikey": "x"}}, "environment.apikey: expected no secret"),
        ({"environment": {"AZURE_CREDENTIAL": "x"}}, "environment.AZURE_CREDENTIAL: expected no"),
        ({"environment": {"DB_PWD": "x"}}, "environment.DB_PWD: expected no secret"),
        ({"environment": {"A": "http://me:pw@mlflow"}}, "environment.A: expected no user:"),
        ({"environment": {"A": "x,redis://:pw@r/0"}}, "environment.A: expected no user:password@"),
        (
            {"steps": {"t": {"environment": {"DATABASE": "postgresql+psycopg2://m:pw@db/m"}}}},
            "steps.t.environment.DATABASE: expected no user:password@",
        ),
        ({"cluster": {"host": "https://me:pw@kubeflow"}}, "cluster.host: expected no user:passwor"),
        ({"environment": {"A": "1"}, "secrets": {"s": {"A": "k"}}}, "secrets.s.A: expected a var"),
        ({"secrets": {"s": {"A": ""}}}, "secrets.s.A: expected the key within the Secret"),
        ({"secrets": {"s": {"A": 3}}}, "secrets.s.A: expected str, found 3"),
        ({"defaults": {"cpu_limit": "four"}}, 'defaults.cpu_limit: expected an amount like "4"'),
        ({"defaults": {"cpu_limit": "0m"}}, 'defaults.cpu_limit: expected an amount like "4"'),
        ({"defaults": {"memory_limit": "4GB"}}, "defaults.memory_limit: expected an amount"),
        ({"defaults": {"shm": "1.5Gi"}}, "defaults.shm: expected an amount"),
        (
            {"defaults": {"cpu_limit": "900m"}, "steps": {"train": {"cpu_request": "1"}}},
            "steps.train.cpu_request: expected at most the limit 900m, found 1",
        ),
        (
            {"defaults": {"memory_request": "2Gi", "memory_limit": "2G"}},
            "defaults.memory_request: expected at most the limit 2G, found 2Gi",
        ),
        ({"defaults": {"timeout": 0}}, "defaults.timeout: expected at least 1, found 0"),
        ({"defaults": {"timeout": 1.5}}, "defaults.timeout: expected int, found 1.5"),
        ({"defaults": {"gpu": {"count": -1}}}, "gpu.count: expected a number that is not nega"),
        ({"defaults": {"retry": {"times": 11}}}, "retry.times: expected a number from 0 to 10"),
        ({"defaults": {"retry": {"factor": 0.5}}}, "retry.factor: expected at least 1, found 0.5"),
        ({"defaults": {"retry": {"wait": 700}}}, "defaults.retry.longest: expected at least wait"),
        ({"defaults": {"retry": {"wait": -1}}}, "retry.wait: expected a number that is not neg"),
        ({"defaults": {"tolerations": [{}]}}, "defaults.tolerations[0].key: expected the taint"),
        (
            {"defaults": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
            "tolerations[0].value: expected none with operator Exists",
        ),
        (
            {"defaults": {"tolerations": [{"key": "a", "effect": "NoSchedule", "seconds": 3}]}},
            "tolerations[0].seconds: expected effect NoExecute",
        ),
        (
            {"defaults": {"tolerations": [{"key": "a", "effect": "Never"}]}},
            "tolerations[0].effect: expected one of",
        ),
        ({"cluster": {"host": "kubeflow"}}, "cluster.host: expected http(s)://"),
        ({"cluster": {"host": "http://k", "ca": "x"}}, "cluster.ca: expected an https:// host"),
        ({"cluster": {"user": 0}}, "cluster.user: expected a user that is not root"),
        ({"docker": {"user": "me"}}, 'docker.user: expected "uid:gid"'),
        ({"docker": {"memory": "lots"}}, "docker.memory: expected an amount"),
        ({"docker": {"tmp": ""}}, "docker.tmp: expected an amount"),
        ({"docker": {"cpus": -1}}, "docker.cpus: expected a number that is not negative"),
        ({"docker": {"processes": 0}}, "docker.processes: expected at least 1"),
        ({"docker": {"gpus": -1}}, "docker.gpus: expected a number that is not negative"),
        ({"docker": {"socket": "/run/docker.sock"}}, "docker.socket: expected unix:///"),
        ({"docker": {"forward": ["A=1"]}}, "docker.forward[0]: expected a variable's name"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(data: dict[str, Any], message: str) -> None:
    (problem,) = problems(data)
    assert message in problem


def test_a_variable_that_only_sounds_like_a_secret_passes() -> None:
    for name, value in (
        ("TOKENIZERS_PARALLELISM", "false"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/etc/aws/credentials"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/gcs.json"),
        ("OLDPWDS", "1"),
        ("MLFLOW_TRACKING_URI", "http://mlflow:5000/a@b:c"),
        ("CONTACT", "https://example.org/?mail=me:you@example.org"),
    ):
        assert parse({"environment": {name: value}}).environment


def test_a_password_in_an_address_is_not_repeated() -> None:
    (problem,) = problems({"environment": {"A": "http://me:hush@mlflow"}})
    assert "hush" not in problem


def test_every_problem_is_listed_at_once() -> None:
    found = problems(
        {
            "imagee": "x",
            "image": "l2dm:latest",
            "defaults": {"timeout": "1h", "gpu": {"cound": 1}},
            "docker": {"gpus": -1},
        }
    )
    assert len(found) == 5
    over = {"memory_request": "2Gi", "memory_limit": "1Gi"}
    found = problems(
        {"docker": {"gpus": -1}, "defaults": {"shm": "1.5Gi"}, "steps": {"a": over, "b": over}}
    )
    assert [one.split(":")[0] for one in found] == [
        "l2dm.toml defaults.shm",
        "l2dm.toml steps.a.memory_request",
        "l2dm.toml steps.b.memory_request",
        "l2dm.toml docker.gpus",
    ]


def test_a_file_that_is_missing_or_torn_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="could not read it"):
        load(tmp_path / "nowhere.toml")
    torn = tmp_path / "torn.toml"
    torn.write_text("[cluster\n")
    with pytest.raises(BadSettings, match="expected TOML in"):
        load(torn)


def test_amounts_are_those_of_kubernetes() -> None:
    assert [cores(text) for text in ("4", "0.5", "500m")] == [4.0, 0.5, 0.5]
    assert [size(text) for text in ("3", "2M", "2Mi", "1Gi")] == [3, 2_000_000, 2**21, 2**30]


def test_a_step_without_words_takes_everything_from_the_defaults() -> None:
    defaults = StepSettings(gpu=Gpu(count=1), timeout=5)
    assert StepSettings().over(defaults) == defaults
    without = StepSettings(gpu=Gpu(count=0))  # a step may do without
    assert without.over(defaults).gpu == Gpu(count=0)


@pytest.mark.parametrize(
    "name", ["DB_PASS", "GITHUB_PAT", "ACCESS_KEY", "AUTH", "SIGNING_KEY", "DSN", "SENTRY_DSN"]
)
def test_more_names_sound_like_secrets(name: str) -> None:
    (problem,) = problems({"environment": {name: "hush"}})
    assert f"environment.{name}: expected no secret here" in problem and "hush" not in problem


def test_a_token_in_an_address_is_a_secret() -> None:
    (problem,) = problems({"environment": {"HOOK": "https://example.org/x?token=hush"}})
    assert "?token= in an address" in problem and "hush" not in problem
