"""The program `jobbus`, and the names that people import."""
