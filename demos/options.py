"""Black-Scholes prices of a European call and put, and their Greeks.

Only the price is written as a formula. Delta, vega, theta and rho are its gradient, and gamma is
from its Hessian, for all spots at once.
"""

from pathlib import Path
from typing import Any

import numpy as np
from panels import BLUE, ORANGE, panels
from terminal import options, run_main

import vgrad

CALL, PUT = 1.0, -1.0
STRIKE, YEARS, RATE, VOLATILITY = 100.0, 0.5, 0.03, 0.25
SHOWN = (80.0, 100.0, 120.0)  # spots whose Greeks are printed


def price(spot: Any, strike: Any, years: Any, rate: Any, volatility: Any, kind: Any) -> Any:
    """What one option is worth; `kind` is 1 for a call and -1 for a put."""
    spread = volatility * vgrad.sqrt(years)
    d1 = (vgrad.log(spot / strike) + (rate + volatility**2 / 2) * years) / spread
    owed = strike * vgrad.exp(-rate * years)
    return kind * (spot * vgrad.ndtr(kind * d1) - owed * vgrad.ndtr(kind * (d1 - spread)))


PRICER = vgrad.compile(price, parameters=[])


def greeks(spots: Any, kind: float) -> dict[str, np.ndarray]:
    """The price at each spot, and its Greeks as traders quote them."""
    option = spots, STRIKE, YEARS, RATE, VOLATILITY, kind
    delta, _, by_years, rho, vega, _ = PRICER.input_grads([], *option)
    return {
        "price": PRICER([], *option),
        "delta": delta,
        "gamma": PRICER.input_hessian([], *option)[:, 0, 0],
        "vega, per 1 %": vega / 100,
        "theta, per day": -by_years / 365,  # the time to expiry runs down
        "rho, per 1 %": rho / 100,
    }


def main(argv: list[str] | None = None) -> int:
    args = options(__doc__, "options.png").parse_args(argv)
    print(f"strike {STRIKE:g}, {YEARS:g} years, rate {RATE:.0%}, volatility {VOLATILITY:.0%}")
    for name, kind in ("call", CALL), ("put", PUT):
        table = greeks(np.array(SHOWN), kind)
        print(f"\n{name:4} at" + "".join(f"{what:>16}" for what in table))
        for spot, row in zip(SHOWN, zip(*table.values())):
            print(f"{spot:7g}" + "".join(f"{x:16.4f}" for x in row))
    if not args.no_plot:
        plot(args.out / "options.png", np.linspace(60, 140, 200))
    return 0


def plot(path: Path, spots: np.ndarray) -> None:
    """The price and five Greeks of both options, over the spot."""
    calls, puts = greeks(spots, CALL), greeks(spots, PUT)
    with panels(path, 2, 3, sharex=True) as axes:
        for panel, name in zip(axes.flat, calls):
            panel.plot(spots, calls[name], color=BLUE, label="call")
            panel.plot(spots, puts[name], "--", color=ORANGE, label="put")
            panel.set(title=name, xticks=[60, 100, 140])
        axes[0, 0].legend()
        axes[1, 1].set_xlabel(f"spot, for a strike of {STRIKE:g}")


if __name__ == "__main__":
    run_main(main)
