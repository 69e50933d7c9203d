"""What changes and what programs print, told while it happens: readers, framing, fan-out."""
