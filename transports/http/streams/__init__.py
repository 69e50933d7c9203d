"""Changes and output, sent while they happen: readers, framing, fan-out."""
