"""The service: settings, start, parts, life, end."""
