"""What `jobbus doctor` looks at in a data directory. Rim: it knows all parts; nobody imports it but
the command line and the start of the service."""
