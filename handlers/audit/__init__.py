"""The audit: who did what, appended to its own segments beside the journal."""
