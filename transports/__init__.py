"""What moves bytes: ways for commands to come in and for events to go out."""
