"""The command line: one page a command, with its options, its work and what it prints.

`cli` assembles the pages. Nothing else imports them, and a page never imports another's work
without need: what several share is `options`, `target`, `output` and `progress`.
"""

from importlib.util import find_spec

if find_spec("fcntl") is None:
    raise SystemExit(
        "error: l2dm runs on Linux and macOS: expected a system with file locks (fcntl), found "
        "none; on Windows run it in WSL2 or in a container"
    )
