"""The service's side of running programs: asks for shims, receives their states, adopts them."""
