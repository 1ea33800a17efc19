"""A short instrumented run: where time, memory and operations go."""
