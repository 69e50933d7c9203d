"""What requests, bodies, pages, problems and connections are. It knows no job and no principal."""
