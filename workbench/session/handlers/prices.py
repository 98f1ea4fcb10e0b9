"""The price table, for every bench that turns tokens or hours into money."""

from __future__ import annotations

from dataclasses import asdict

from workbench.session.protocol import ListPrices, PricesListed, Request
from workbench.session.runtime import Context, Handler, quick
from workbench.vram.prices import load_prices, user_file


def _prices(_request: ListPrices, _context: Context) -> PricesListed:
    prices = load_prices()
    return PricesListed(
        gpus=[{"name": name, **asdict(price)} for name, price in prices.gpus.items()],
        apis=[{"name": name, **asdict(price)} for name, price in prices.apis.items()],
        own_table=str(user_file()),
    )


HANDLERS: dict[type[Request], Handler] = {ListPrices: quick(_prices)}
