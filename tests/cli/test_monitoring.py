"""What `bros monitoring` writes, and that dashboard and alerts name only what a scheduler really exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder
from typer.testing import CliRunner

from bros_sglang.cli.app import app
from bros_sglang.reference import metrics

SERIES = re.compile(r"(sglang:bros_\w+)(?:\{([^}]*)\})?")
BY = re.compile(r"(?:by|on)\s*\(([^)]*)\)")
OF_PROMETHEUS = {"instance", "job", "le", "alertname", "alertstate"}  # labels that scraping adds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monitoring") / "here"
    written = CliRunner().invoke(
        app, ["monitoring", str(folder), "--server", "gpu-1:30000", "--server", "http://gpu-2:30001/"]
    )
    assert written.exit_code == 0, written.output
    return folder


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of every series."""
    return {series: set(metric.labels) for metric in metrics() for series in metric.series}


def _dashboard(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "grafana/dashboards/bros.json").read_text())


def _queries(folder: Path) -> list[str]:
    dashboard = _dashboard(folder)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [
        variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"
    ]
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    return queries + [rule["expr"] for group in groups for rule in group["rules"]]


def test_every_series_and_label_named_is_exported(folder: Path, exported: dict[str, set[str]]) -> None:
    named = 0
    for query in _queries(folder):
        for name, selector in SERIES.findall(query):
            assert name in exported, f"{name} in {query}"
            named += 1
            used = set(re.findall(r"(\w+)\s*(?:=|!)", selector))
            assert used <= exported[name] | OF_PROMETHEUS, f"{used} of {name} in {query}"
        labels = {label.strip() for group in BY.findall(query) for label in group.split(",")} - {""}
        known = set().union(*(exported[name] for name, _ in SERIES.findall(query)), OF_PROMETHEUS)
        assert labels <= known, query
    assert named > 40


def test_the_dashboard_is_whole(folder: Path) -> None:
    dashboard = _dashboard(folder)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {"instance", "model_name"} <= variables  # SGLang's own dashboard has these two: links carry them
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        legends = {target["legendFormat"] for target in panel["targets"]}
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in legends
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= variables | {"__rate_interval"}


def test_both_servers_are_watched(folder: Path) -> None:
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gpu-1:30000", "gpu-2:30001"]}]
    assert job["job_name"] == "sglang"  # the alerts say up{job="sglang"}
    for name in config["rule_files"]:
        assert (folder / name).is_file()


@pytest.mark.parametrize(
    "accept",
    [
        # Prometheus 2 and 3: the first gets names with underscores from prometheus_client.
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
        "text/plain;version=0.0.4",
    ],
)
def test_names_arrive_as_the_dashboard_says_them(folder: Path, accept: str) -> None:
    registry = CollectorRegistry()
    Counter("sglang:bros_passes_total", "Passes.", registry=registry).inc()
    text = choose_encoder(accept)[0](registry).decode()
    (name,) = re.findall(r"^(sglang\S+_total) ", text, re.MULTILINE)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    (rule,) = config["scrape_configs"][0]["metric_relabel_configs"]
    assert rule["target_label"] == "__name__"
    renamed = re.sub(f"^{rule['regex']}$", rule["replacement"].replace("$1", r"\1"), name)
    assert renamed == "sglang:bros_passes_total"


def test_the_compose_file_mounts_what_is_there(folder: Path) -> None:
    services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    mounted = [
        volume.split(":")[0]
        for service in services.values()
        for volume in service["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 4
    for name in mounted:
        assert (folder / name).exists(), name
    provider = yaml.safe_load((folder / "grafana/provisioning/dashboards/bros.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == "${BROS_DASHBOARDS}"
    dashboards = services["grafana"]["environment"]["BROS_DASHBOARDS"]
    assert any(volume.split(":")[1] == dashboards for volume in services["grafana"]["volumes"])


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    refused = CliRunner().invoke(app, ["monitoring", str(tmp_path)])
    assert refused.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("server", ["localhost", "localhost:0", "localhost:99999", "a b:1", "http://h:1/x"])
def test_a_wrong_address_is_refused(tmp_path: Path, server: str) -> None:
    refused = CliRunner().invoke(app, ["monitoring", str(tmp_path / "new"), "--server", server])
    assert refused.exit_code == 2
    assert "HOST:PORT" in refused.output
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize(
    "check",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_it(folder: Path, check: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *check], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways(folder: Path) -> None:
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    quiet, fired = set(), set()
    for test in yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]:
        for one in test["alert_rule_test"]:
            (fired if one["exp_alerts"] else quiet).add(one["alertname"])
    assert fired == quiet == alerts
