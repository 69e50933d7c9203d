"""The same over WebSocket: many subscriptions on one connection, and commands."""
