"""Pure: from events to entries of the audit, and from what was refused before it made one."""
