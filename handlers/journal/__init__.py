"""The record of decisions on disk, and the way back from it to a table."""
