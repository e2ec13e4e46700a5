import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.server_process import ServerProcess

# A server with a child in a session of its own that ignores SIGTERM, as stubborn as they come.
SERVER = """
import http.server, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
COMMAND = [sys.executable, "-c", SERVER]


def child_pid(log):
    return int(re.findall(r"^child (\d+)$", log.read_text(), re.MULTILINE)[0])


def wait_gone(pid):
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_the_whole_tree_is_gone_afterwards(tmp_path):
    log = tmp_path / "log"
    with ServerProcess(COMMAND, log) as server:
        assert server.exit_status() is None
        assert server.cpu_s() > 0
        pid = child_pid(log)
        assert psutil.pid_exists(pid)
    wait_gone(pid)
    server.stop()  # safe again


def test_the_tree_is_gone_after_an_exception(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), ServerProcess(COMMAND, log):
        raise KeyboardInterrupt
    wait_gone(child_pid(log))


def test_a_server_that_ends_at_start_is_explained_by_its_log(tmp_path):
    command = [sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"]
    with pytest.raises(LiveError, match=r"(?s)status 3 while it started.*no such model"):
        ServerProcess(command, tmp_path / "log").__enter__()


def test_a_server_that_never_answers_times_out_and_is_stopped(tmp_path):
    waits = []
    command = [
        sys.executable,
        "-c",
        "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)",
    ]
    server = ServerProcess(command, tmp_path / "log", timeout_s=1.0, on_wait=waits.append)
    with pytest.raises(LiveError, match="not up after 1 s"):
        server.__enter__()
    wait_gone(int(re.findall(r"^pid (\d+)$", (tmp_path / "log").read_text(), re.MULTILINE)[0]))
    assert waits == sorted(waits)


def test_a_command_that_does_not_exist(tmp_path):
    with pytest.raises(LiveError, match="cannot run /nonexistent"):
        ServerProcess(["/nonexistent"], tmp_path / "log").__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_signals_to_the_client_end_the_server(tmp_path, number):
    log = tmp_path / "log"
    program = textwrap.dedent(f"""
        import pathlib, sys, time
        from bros_sglang.evals.live.server_process import ServerProcess, terminate_as_interrupt
        with terminate_as_interrupt(), ServerProcess({COMMAND!r}, pathlib.Path({str(log)!r})) as server:
            print(server._process.pid, flush=True)
            time.sleep(600)
    """)
    client = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        server_pid = int(client.stdout.readline())
        os.kill(client.pid, number)
        client.wait(20)
        wait_gone(server_pid)
        if number != signal.SIGKILL:  # then the server's own children are the server's to end, as SGLang's do
            wait_gone(child_pid(log))
    finally:
        client.kill()
        if log.exists() and psutil.pid_exists(child_pid(log)):
            os.kill(child_pid(log), signal.SIGKILL)


def test_a_command_of_another_engine_is_filled_in_and_may_have_no_health(tmp_path):
    script = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models" else 404); self.end_headers()
    def log_message(self, *args): pass
print("model", sys.argv[2], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
    log = tmp_path / "log"
    command = [sys.executable, "-c", script, "{port}", "at={model}"]
    with ServerProcess(command, log, placeholders={"model": "/m"}) as server:
        assert server.exit_status() is None
    assert "model at=/m" in log.read_text()
