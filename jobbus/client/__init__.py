"""The Python client of a jobbus service: aiohttp, msgspec and the standard library only."""
