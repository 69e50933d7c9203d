"""What runs beside each program, and the warm process it is forked from. Stdlib only."""
