"""Make `sglang launch_server …` start a server, as `sglang serve …` does.

SGLang's console script knows no `launch_server`. A `.pth` line installed beside the package imports this
module only when the first argument of the process is that word; nothing else is touched, and SGLang's own
console script stays as it is. Source: `sglang/cli/main.py` (0.5.23) for the subcommands it has.
"""

from __future__ import annotations

import sys
from pathlib import PurePath


def translate() -> None:
    """Rewrite `sglang launch_server ARGS` to `sglang serve ARGS` in `sys.argv`; leave all else alone."""
    argv = sys.argv
    if len(argv) > 1 and argv[1] == "launch_server" and PurePath(argv[0]).name == "sglang":
        argv[1] = "serve"
