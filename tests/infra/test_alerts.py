"""Alerts: they parse, ring when they should, know their metrics, and say what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.services.line.records import Records
from pipelines.dispatcher.metrics import Measured
from tests.worlds.dispatch_world import World

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "infra/cluster/base/prometheusrule.yaml").read_text())["spec"]
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
TESTS = Path(__file__).with_name("alerts.yaml")


def test_every_alert_has_a_heading_in_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    for alert in ALERTS:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (ROOT / page).is_file() and anchor in anchors
        assert anchor == alert["alert"].lower()


@pytest.mark.parametrize(
    "metric",
    sorted({*re.findall(r"\bl2dm_\w+", "\n".join(one["expr"] for one in ALERTS))}),
)
def test_every_metric_of_an_alert_is_told_by_the_dispatcher(metric: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.upload("pets", "rex")
    records = Records(world.home.store, "pets")
    records.append("promotion", line="pets", task="t0001", source=0, target=1)
    records.append("scheduled", line="pets", cron="0 3 * * *", settings=[])
    measured = Measured(world.dispatcher)
    measured.look()
    told = {family.name for family in text_string_to_metric_families(measured.text())}
    assert metric in told


def test_alerts_ring_when_they_should(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian: prometheus) is not installed: no alert was tried")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    shutil.copy(TESTS, tmp_path)
    for command in (("check", "rules", "rules.yaml"), ("test", "rules", TESTS.name)):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    tried = {
        one["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert tried == {alert["alert"] for alert in ALERTS}
