"""What every stage is handed: sizes, output folder, budget, records, and the server that runs just now."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu import environment
from bros_sglang.evals.gpu.child import measured_by
from bros_sglang.evals.gpu.models import LOAD_DUMMY
from bros_sglang.evals.live.policy_flags import POLICIES
from bros_sglang.evals.live.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bros_sglang.evals.gpu.budget import Budget
    from bros_sglang.evals.gpu.scale import Scale
    from bros_sglang.evals.gpu.store import CellStore

# Graphs first, without them where they do not run. Prefill graphs stay out: chunks differ from step to step.
GRAPHS: dict[str, tuple[str, ...]] = {
    "decode": ("--disable-prefill-cuda-graph",),
    "none": ("--disable-prefill-cuda-graph", "--disable-decode-cuda-graph"),
}
START_TIMEOUT_S = 300.0  # kernels compiled and graphs captured; one that hangs must leave time for the others
TREE_CORE_ENV = "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND"


@dataclass
class GpuRun:
    """One output folder and what is done with it. One server at a time, kept while the next cell wants it."""

    out: Path
    scale: Scale
    budget: Budget
    store: CellStore
    say: Callable[[str], None]
    _server: ServerProcess | None = None
    _wanted: tuple[tuple[str, ...], tuple[tuple[str, str], ...]] | None = None

    # -- the environment

    @cached_property
    def env(self) -> dict[str, str]:
        """Environment of servers and measuring processes: the tree core that works here included."""
        env = environment.base_env(self.out, cpu=self.scale.on_cpu)
        host = self.store.result("host", "host")
        if host is not None and not host["rust_tree_core"]["works"]:
            env[TREE_CORE_ENV] = "python"
        return env

    def folder(self, *parts: str) -> Path:
        """Return a folder of the output, made where it is missing."""
        folder = self.out.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def model(self, name: str) -> Path:
        """Return the folder of a model, written where it is missing."""
        folder = self.out / "models" / name
        if not (folder / "generation_config.json").is_file():
            self.measured("bros_sglang.evals.gpu.models", [name, str(folder)], "model")
        return folder

    def measured(self, module: str, arguments: Sequence[str], log: str) -> dict[str, Any]:
        """Run a measuring module in a process of its own; see `measured_by`."""
        path = self.folder("logs") / f"{log}.log"
        return measured_by(module, arguments, path, env=self.env, timeout_s=self.budget.left_s())

    # -- servers

    def graph_flags(self) -> tuple[str, ...]:
        """Return the flags for the graphs that the start stage found to run."""
        if self.scale.on_cpu:
            return ()
        start = self.store.result("start", "stock") or {}
        graphs = str(start.get("graphs", "none"))
        flags = GRAPHS[graphs]
        return (*flags, "--cuda-graph-max-bs-decode", str(self.scale.running)) if graphs != "none" else flags

    def arguments(
        self,
        policy: str,
        *,
        model: str | None = None,
        attention: str | None = None,
        page_size: int = 1,
        pool_tokens: int | None = None,
        graphs: Sequence[str] | None = None,
        extra: Sequence[str] = (),
    ) -> list[str]:
        """Return the arguments of a server; what is left out is the run's own choice."""
        scale = self.scale
        arguments = [
            *("--model-path", str(self.model(model or scale.model))),
            *LOAD_DUMMY,
            *("--dtype", scale.dtype),
            *("--device", scale.device),
            *("--random-seed", "0"),
            *("--max-total-tokens", str(pool_tokens or scale.pool_tokens)),
            *("--max-running-requests", str(scale.running)),
            *("--chunked-prefill-size", str(scale.chunk_tokens)),
            *("--context-length", str(scale.context_tokens)),
            *("--page-size", str(page_size)),
            *("--sampling-backend", "pytorch"),
            *("--grammar-backend", "none"),
        ]
        if not scale.on_cpu:
            arguments += ["--attention-backend", attention or scale.attention[0]]
            arguments += self.graph_flags() if graphs is None else graphs
        return [*arguments, *POLICIES[policy].flags, *extra]

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command of an ordinary server."""
        return [sys.executable, "-m", "sglang.launch_server", *arguments]

    def server(self, command: Sequence[str], log: str, env: dict[str, str] | None = None) -> ServerProcess:
        """Return a running server with this command: the one that runs, if it is the same, or a new one."""
        wanted = (tuple(command), tuple(sorted((env or {}).items())))
        if self._server is not None and self._wanted == wanted and self._server.exit_status() is None:
            return self._server
        self.close()
        # Known before it is up: the budget may end while it starts.
        self._server, self._wanted = (
            ServerProcess(
                command,
                self.folder("logs") / f"server-{log}.log",
                env={**self.env, **(env or {})},
                timeout_s=min(START_TIMEOUT_S, self.budget.left_s()),
            ),
            wanted,
        )
        try:
            return self._server.__enter__()
        except BaseException:
            self._server = self._wanted = None
            raise

    def close(self) -> None:
        """Stop the server that runs, if any."""
        server, self._server, self._wanted = self._server, None, None
        if server is not None:
            server.stop()
