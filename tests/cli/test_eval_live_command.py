import orjson
import pytest
from typer.testing import CliRunner

from bros_sglang.cli.demo import app as demo_app
from bros_sglang.cli.eval import app as eval_app
from bros_sglang.cli.eval_live import app as live_app
from bros_sglang.cli.eval_report import app as report_app


def run(app, *args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_eval_lists_what_is_installed():
    result = run(eval_app, "--help")
    assert result.exit_code == 0
    for name in ("replay", "live", "report"):
        assert name in result.output
    assert run(eval_app, "nope").exit_code == 2
    assert "URL" in run(eval_app, "live", "--help").output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policies", "nope"], "unknown policy 'nope'"),
        (["--rt", "none", "--be", "none"], "nothing to send"),
        (["--policies", "rt-alone", "--rt", "none"], "sends only a class whose workload is none"),
        (["--rt", "sharegpt:rate=0"], "rate=0 must be positive"),
        (["--rt", "/no/such/file"], "neither a file nor the name"),
        (["--api", "grpc"], "give auto, sglang or openai"),
        (["--url", "http://127.0.0.1:9"], "nothing answers at http://127.0.0.1:9/v1/models"),
        (["--server-args", "'"], "--server-args"),
    ],
)
def test_bad_options_are_explained(tmp_path, args, message):
    result = run(live_app, *args, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("app", [live_app, demo_app])
def test_an_earlier_run_is_never_overwritten_silently(tmp_path, app):
    (tmp_path / "run.json").write_bytes(orjson.dumps({"started": "2026-01-01"}))
    result = run(app, "--out", tmp_path)
    assert result.exit_code == 1
    assert "holds another run (started 2026-01-01)" in result.output


def test_report_on_nothing(tmp_path):
    result = run(report_app, tmp_path)
    assert result.exit_code == 1
    assert "has no results.json" in result.output
