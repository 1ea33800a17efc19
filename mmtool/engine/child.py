"""The process of one launched rank: `python -m mmtool.engine.child RUN`.

Signals are noted before anything heavy is imported: loading torch takes seconds, in which a
scheduler's warning must not kill. How the rank failed is left as JSON for the launcher.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from mmtool.engine.attempt import failure, write_report
from mmtool.engine.stop import StopRequest


def main() -> None:
    """Run one rank and end with its exit code."""
    path, code = Path(sys.argv[1]), 0
    with StopRequest() as stop:
        try:
            from mmtool.engine.rank import run_rank
            from mmtool.runlog.rundir import RunDir

            run_rank(RunDir(path), stop)
        except Exception as error:  # noqa: BLE001 - the edge of this process
            code, report = failure(error)
            write_report(path, int(os.environ.get("RANK", "0")), report)
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End with this exit code, whatever the threads of torch and gloo are about to do.

    While an interpreter shuts down, a thread that lets go of its last tensor waits for it in vain
    and takes the process down ("terminate called without an active exception"); and being asked to
    stop just then would count as a failure too.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
