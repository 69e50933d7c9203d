"""The vocabulary and the machinery of jobbus: commands in, events out."""
