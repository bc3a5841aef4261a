"""The command line: a module per command; parses arguments, prints results."""
