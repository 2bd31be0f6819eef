"""`embedserve env`: every setting, its value, and where it is from."""

from dataclasses import asdict

from embedserve.bootstrap.sources import read_all, shown
from embedserve.cli.client import Home
from embedserve.cli.console import AsJson, errors, print_json, print_table


def env(home: Home = None, as_json: AsJson = False) -> None:
    """Print every setting, its value and where it is from; keys are masked."""
    reading = read_all({"home": home})
    found = shown(reading)
    if as_json:
        rows = [asdict(one) for one in found]
        print_json({"settings": rows, "ignored": reading.ignored})
        return
    print_table(
        [[one.name, one.value or "-", one.origin] for one in found], "SETTING", "VALUE", "FROM"
    )
    for variable, reason in reading.ignored.items():
        errors.print(f"{variable} is ignored: {reason}.")
