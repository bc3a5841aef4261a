"""What the core systems keep: plain functions over a database connection, one module per kind of row."""
