"""What `jobbus doctor` checks in a data directory.

It knows all parts; only the command line and the start of the service import it.
"""
