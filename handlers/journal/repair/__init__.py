"""How a table takes in what is left of a damaged journal. Pure: no IO, no clock, no entropy."""
