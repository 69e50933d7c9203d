"""`python -m bus` is `jobbus`."""

from bus.cli.main import main

if __name__ == "__main__":
    main()
