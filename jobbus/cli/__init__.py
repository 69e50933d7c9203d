"""The command line: one module a kind of command, imported only when it is used."""
