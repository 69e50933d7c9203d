"""What programs printed, read by offset, line and text."""
