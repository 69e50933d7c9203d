"""The gateway: publishes commands over HTTP and streams what becomes of them."""
