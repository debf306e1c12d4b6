"""`python -m vmctl` is `vmctl`."""

from vmctl.cli import main

if __name__ == "__main__":
    main()
