"""The service's side of running programs: asks for shims, hears them, adopts them."""
