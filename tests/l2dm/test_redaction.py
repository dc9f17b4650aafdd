"""What is no secret stays in a text, what is one does not."""

from pathlib import Path

import pytest

from l2dm import redaction

NAMES = (
    *("DB_PASS", "GITHUB_PAT", "ACCESS_KEY", "AUTH", "SIGNING_KEY", "DSN", "SENTRY_DSN", "token"),
    *("AWS_SECRET_ACCESS_KEY", "apikey", "WANDB_API_KEY", "DB_PWD", "HF_TOKEN", "accessToken"),
    *("MLFLOW_TRACKING_PASSWORD", "HTTP_AUTHORIZATION", "X-Amz-Signature", "X-Amz-Security-Token"),
    *("X-Amz-Credential", "SSH_PRIVATE_KEY", "passphrase", "client_secret", "sig"),
)
PLAIN = (
    *("TOKENIZERS_PARALLELISM", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("OLDPWDS", "MLFLOW_TRACKING_URI", "AWS_ACCESS_KEY_ID", "PATH", "AUTHOR", "COMPASS", "BYPASS"),
    *("KEYBOARD", "PATTERN", "class_noun", "PASSES", "DESIGN", "monkey", "SIGNAL"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_sounds_like_a_secret_is_one(name: str) -> None:
    assert redaction.is_secret(name)
    assert "hush" not in redaction.redacted(f"GET http://mlflow/?a=1&{name}=hush!x&b=2")
    assert "hush" not in redaction.redacted(f'{{"{name}": "hush hush", "b": 2}}')
    assert redaction.holds_login(f"http://mlflow/?{name}=hush")


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_that_only_looks_like_one_is_none(name: str) -> None:
    assert not redaction.is_secret(name)
    assert redaction.redacted(f"{name}=value and {name}: 'value'") == (
        f"{name}=value and {name}: 'value'"
    )


@pytest.mark.parametrize(
    "text",
    [
        "expected MLflow at http://me:hush@mlflow:5000/x to answer",
        "postgresql+psycopg2://l2dm:hu:sh@db/mlflow",
        "http://me:hush%40home@mlflow",
        "Authorization: Bearer hush.hush-hush_hush",
        "https://hush_hush_hush_hush_hush@example.org/x",
        "MLFLOW_TRACKING_PASSWORD=hush",
        "HTTPConnectionPool(host='mlflow'): url: /api?token=hush (Caused by hushing)"[:52],
    ],
)
def test_a_secret_in_a_text_is_hidden_and_the_rest_stays(text: str) -> None:
    hidden = redaction.redacted(text)
    assert "hu" not in hidden and redaction.HIDDEN in hidden
    assert redaction.redacted(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "http://mlflow:5000/a@b:c",
        "https://example.org/?mail=me:you@example.org",
        "expected a token like <rex>, found 'rex'",
        "s3://bucket/prefix: expected 3 pictures, found 2",
        "task=t0001 concept=rex seed=7",
        "the password is asked for by Kubernetes",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redaction.redacted(text) == text
    assert not redaction.holds_login(text)


def test_values_of_the_environment_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redaction, "_KNOWN", [])
    redaction.learn(
        {
            "L2DM_WEBHOOK_TOKEN": "of-this-process",
            "MLFLOW_TRACKING_URI": "http://me:p%40ssword@mlflow",
            "SHORT_TOKEN": "a",
            "HOME": "/home/me",
        }
    )
    told = redaction.redacted("refused of-this-process, p@ssword and p%40ssword; a dog in /home/me")
    assert told == "refused ***, *** and ***; a dog in /home/me"


def test_folders_and_files_that_the_environment_names_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every shell says in PWD where it stands: paths below would be told as `***/out`."""
    monkeypatch.setattr(redaction, "_KNOWN", [])
    file = tmp_path / "token"
    file.write_text("of-this-process")
    redaction.learn(
        {"PWD": str(tmp_path / "moved"), "SSH_KEY": str(file), "DB_PWD": "/a/pass+word=="}
    )
    assert redaction.redacted(f"{tmp_path}/moved/out {file}") == f"{tmp_path}/moved/out {file}"
    assert redaction.redacted("refused /a/pass+word==") == "refused ***"


def test_records_are_searched_through() -> None:
    facts = {"reasons": ["http://a:hush@b", {"x": ("DB_PASS=hush",)}], "n": 1, "none": None}
    assert redaction.in_data(facts) == {
        "reasons": ["http://***@b", {"x": ["DB_PASS=***"]}],
        "n": 1,
        "none": None,
    }
