"""Contract suites and fakes, public for plugin authors; nothing in mmtool imports them."""
