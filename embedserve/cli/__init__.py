"""Command line: parse, call, print."""


def main() -> None:
    """Run the `embedserve` command."""
    # Imported here so that `import embedserve.cli` stays free of effects and weight.
    from embedserve.cli.app import run

    run()
