"""The durable transport: one readable JSON file a command, in a directory."""
