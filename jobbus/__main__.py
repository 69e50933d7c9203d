"""`python -m jobbus` is `jobbus`."""

from jobbus.cli.main import main

if __name__ == "__main__":
    main()
