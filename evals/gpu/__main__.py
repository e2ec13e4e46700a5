"""`python -m bros_sglang.evals.gpu --out DIR`: measure everything on a GPU host, in stages that resume.

`--payload FOLDER` comes first of all: on a bare host this program's own imports lie there too.
"""

import os
import sys


def _use_payload(argv: list[str]) -> None:
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name == "--payload":
            folder = value if equals else argv[index + 1] if index + 1 < len(argv) else ""
            if not os.path.isdir(folder):  # noqa: PTH112 (before anything else is imported)
                raise SystemExit(f"error: --payload {folder!r} is not a folder")
            folder = os.path.abspath(folder)  # noqa: PTH100
            # The payload's packages stand in front of the host's, for servers too.
            sys.path.insert(0, folder)
            inherited = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = folder + (os.pathsep + inherited if inherited else "")
            return


if __name__ == "__main__":
    _use_payload(sys.argv[1:])
    from bros_sglang.evals.gpu.command import app

    app()
