"""Recipe text to frozen, checked models; every problem with its line and column."""
