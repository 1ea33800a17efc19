"""Run the command line as `python -m mmtool`."""

from mmtool.cli.app import main

if __name__ == "__main__":
    main()
