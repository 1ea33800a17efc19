"""Run a function on several real ranks: processes joined by gloo.

    run_ranks(2, "my_package.my_module:function", argument, ...)

The function is called as `function(ranks, *arguments)` in every process; arguments are strings.
"""

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch

from mmtool.engine.child import end_process
from mmtool.engine.distributed import join, leave
from mmtool.engine.pulse import LISTEN_FD
from mmtool.registry import load_file


def run_ranks(world: int, target: str, *arguments: str, timeout_s: float = 120.0) -> None:
    """Call `target`, module:function or file.py:function, on every rank; fail with its output."""
    with socket.socket() as listener, tempfile.TemporaryFile("w+") as output:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        children = []
        for rank in range(world):
            env = {
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(listener.getsockname()[1]),
                "OMP_NUM_THREADS": "1",
            }
            kept: tuple[int, ...] = ()
            if rank == 0:
                env[LISTEN_FD] = str(listener.fileno())
                kept = (listener.fileno(),)
            command = [sys.executable, "-m", "mmtool.testing.ranks", target, *arguments]
            children.append(
                subprocess.Popen(
                    command, env=env, pass_fds=kept, stdout=output, stderr=subprocess.STDOUT
                )
            )
        try:
            codes = [child.wait(timeout=timeout_s) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        if any(codes):
            output.seek(0)
            raise AssertionError(f"ranks ended with {codes}:\n{output.read()}")


def main() -> None:
    """Be one rank."""
    module_name, _, function = sys.argv[1].rpartition(":")
    is_file = module_name.endswith(".py")
    module = load_file(Path(module_name)) if is_file else importlib.import_module(module_name)
    torch.set_num_threads(1)
    ranks, code = join(torch.device("cpu"), timeout_s=60.0), 0
    try:
        getattr(module, function)(ranks, *sys.argv[2:])
    except BaseException:  # noqa: BLE001 - the edge of this process
        traceback.print_exc()
        code = 1
    leave(ranks)
    end_process(code)


if __name__ == "__main__":
    main()
