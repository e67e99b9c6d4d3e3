"""L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E), Farseer, 2506.10972.

For each N a power law in D whose floor, amplitude and exponent each change smoothly with N.

Three numbers such as (s, q, S) describe one curve c(u) = s exp(q u) + S in u = ln N, and trade against each
other along a bent ridge. The fit therefore moves along the curve's value and slope at the centre of the
rows, where c = value + slope (exp(q x) - 1)/q, x = u - centre.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from harness.laws.forms.form import Form, Parameter, Rows
from harness.laws.forms.starts import projected
from harness.laws.objective import FormSurface, Response, respond
from harness.laws.surfaces import Floats

DATA_EXPONENTS = np.linspace(0.1, 1.2, 12)
POWERS = list(itertools.product((0.1, 0.2), (-0.2, -0.1), (0.05, 0.15)))
"""q, b and a of the starts; the paper's are .13, -.1729 and .0459."""

STEEPEST, POWER_BOUND, HIGHEST = 5.0, 1.0, 60.0
"""Bounds of a curve's slope by ln N, of its power, and of its value, at the centre of the rows."""

FLATTEST = 1e-5


def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    s, q, big_s, big_b, b, big_q, big_a, a, e = values
    u, v = np.log(rows["params"]), np.log(rows["tokens"])
    n_q, n_b, n_a = np.exp(q * u), np.exp(b * u), np.exp(a * u)
    floor = np.exp(s * n_q + big_s)
    exponent = np.exp(big_a * n_a + e)
    data = np.exp(big_b * n_b + big_q - exponent * v)
    slope = -data * exponent * v
    by_floor = [floor * n_q, floor * s * n_q * u, floor]
    by_data = [data * n_b, data * big_b * n_b * u, data]
    return floor + data, [*by_floor, *by_data, slope * n_a, slope * big_a * n_a * u, slope]


@dataclass(frozen=True)
class FarseerSurface(FormSurface):
    """Theta is (slope, power, value) of ln floor, of ln amplitude and of ln exponent, at `centre`."""

    centre: float = 0.0

    def to_values(self, theta: Floats) -> Floats:
        values = theta.copy()
        for i in range(0, 9, 3):
            slope, power, value = theta[:, i : i + 3].T
            power = away_from_zero(power)
            values[:, i] = slope / power * np.exp(-power * self.centre)
            values[:, i + 2] = value - slope / power
        return values

    def to_theta(self, values: Floats) -> Floats:
        theta = values.copy()
        for i in range(0, 9, 3):
            scale, power, shift = values[:, i : i + 3].T
            lifted = scale * np.exp(power * self.centre)
            theta[:, i], theta[:, i + 2] = lifted * power, lifted + shift
        return theta

    def bounds(self, smallest: float) -> tuple[Floats, Floats]:
        high = np.tile([STEEPEST, POWER_BOUND, HIGHEST], 3)
        return -high, high

    def response(self, theta: Floats) -> Floats:
        return respond(self.kind, self._parts(theta)[0])[0]

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        loss, by_curve, curves = self._parts(theta)
        response, slope = respond(self.kind, loss)
        parts = [by * part for by, curve in zip(by_curve, curves, strict=True) for part in curve]
        return response, np.stack(parts, axis=-1) * slope[..., None]

    def _parts(self, theta: Floats) -> tuple[Floats, tuple[Floats, ...], list[tuple[Floats, ...]]]:
        """The loss, its derivatives by the three curves, and theirs by slope, power and value."""
        x, v = np.log(self.rows["params"]) - self.centre, np.log(self.rows["tokens"])
        values: list[Floats] = []
        slopes: list[tuple[Floats, ...]] = []
        for i in range(0, 9, 3):
            slope, power, value = (column[:, None] for column in theta[:, i : i + 3].T)
            power = away_from_zero(power)
            reach = np.expm1(power * x) / power
            values.append(value + slope * reach)
            bend = (x * np.exp(power * x) - reach) / power
            slopes.append((reach, slope * bend, np.ones_like(reach)))
        floor, exponent = np.exp(values[0]), np.exp(values[2])
        data = np.exp(values[1] - exponent * v)
        return floor + data, (floor, data, -data * exponent * v), slopes


def away_from_zero(power: Floats) -> Floats:
    """The curve at power zero is the limit of those around it."""
    return np.where(np.abs(power) < FLATTEST, np.copysign(FLATTEST, power), power)


def surface(rows: Rows) -> FarseerSurface:
    centre = float(np.log(rows["params"]).mean())
    return FarseerSurface(FARSEER, rows, Response.log, centre)


def starts(rows: Rows, loss: Floats) -> Floats:
    """A power law in D at each N, then each of its three numbers on a power of N."""
    n, d = rows["params"], rows["tokens"]
    often = [size for size in np.unique(n) if (n == size).sum() >= 4]
    if len(often) < 3:
        return np.zeros((0, 9))
    sizes = np.array(often)
    floors, amplitudes, exponents = np.array([power_law(d[n == size], loss[n == size]) for size in often]).T

    def on_power(y: Floats, power: float) -> list[float]:
        slope, intercept = np.polyfit(sizes**power, np.log(y), 1)
        return [float(slope), power, float(intercept)]

    return np.array(
        [[*on_power(floors, q), *on_power(amplitudes, b), *on_power(exponents, a)] for q, b, a in POWERS]
    )


def power_law(d: Floats, loss: Floats) -> tuple[float, float, float]:
    """Floor, amplitude and exponent of the best of a grid of exponents."""

    def miss(solved: Floats, beta: float) -> float:
        return float((((solved[0] + solved[1] * d**-beta) / loss - 1) ** 2).sum())

    shapes = [(float(x),) for x in DATA_EXPONENTS]
    tries = projected(shapes, lambda beta: [np.ones(1), d**-beta], loss)
    solved, (beta,) = min(tries, key=lambda t: miss(t[0], t[1][0]))
    return float(solved[0]), float(solved[1]), beta


def free(name: str, reach: float) -> Parameter:
    return Parameter(name, -reach, reach, log=False)


FARSEER = Form(
    name="farseer",
    parameters=(
        *(free("s", 1e3), free("q", 1.0), free("S", 1e3)),
        *(free("B", 1e5), free("b", 1.0), free("Q", 1e3)),
        *(free("A", 1e3), free("a", 1.0), free("E", 1e3)),
    ),
    columns=("params", "tokens"),
    evaluate=evaluate,
    starts=starts,
    surface=surface,
)
