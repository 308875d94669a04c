"""The command line: edges only, nothing imports it."""
