"""The Python client of the gateway."""
