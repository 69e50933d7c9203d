"""What follows from a command or a report: pure functions on the job table, no IO at all."""
