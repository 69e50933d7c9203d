"""What `transports.http.client` is made of."""
