"""`python -m speechemo_cli` is `speechemo`."""

from speechemo_cli.cli.app import main

if __name__ == "__main__":
    main()
