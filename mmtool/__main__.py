"""Run the command line as `python -m mmtool`."""

import signal

# A scheduler's warning may come while this loads and would kill; it waits until a run listens.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

from mmtool.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
