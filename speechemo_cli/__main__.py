"""`python -m speechemo_cli` is `speechemo`."""

import signal


def main() -> None:
    """Load the command line and run it. Ctrl-C ends the process without a word while nothing is loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from speechemo_cli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
