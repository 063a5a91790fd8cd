"""A small fixed set of kernels for the tests of graphs: few, so that they are compiled once a session."""

from __future__ import annotations

import numpy as np

from gridcompute import random
from gridcompute.kernels import kernel, task
from gridcompute.reducer import reduction


@kernel("()->()")
def scaled(x, k=3.0, b=1.0):
    return x * k + b


@kernel("()->(),()", names=("low", "high"))
def both(x):
    return x - 1.0, x + 2.0


@kernel("(),()->()")
def pair(a, b):
    return a - 2.0 * b


@kernel("(x)->()")
def weighted(series):
    total = 0.0
    for i in range(len(series)):
        total += (i + 1) * series[i]
    return total


@kernel("(x)->(x)")
def running(series):
    out = np.empty(len(series))
    total = 0.0
    for i in range(len(series)):
        total += series[i]
        out[i] = total
    return out


@kernel("(row)->(row)")
def running_row(series):
    out = np.empty(len(series))
    total = 0.0
    for i in range(len(series)):
        total += series[i]
        out[i] = total
    return out


@kernel("(x)->(k),()", sizes={"k": 2}, names=("ends", "middle"))
def ends(series):
    out = np.empty(2)
    out[0] = series[0]
    out[1] = series[-1]
    return out, series[len(series) // 2]


@kernel("()->()")
def placed(x, cell):
    total = x
    for i in range(len(cell)):
        total += 100.0 * (i + 1) * cell[i]
    return total


@kernel("()->()")
def drawn(x, rng):
    return x + random.integers(rng, 1000)


@kernel("()->()")
def known(x, valid):
    return x * 2.0 if valid else -7.0


@kernel("(n)->()")
def size_of(items):
    total = 0.0
    for i in range(len(items)):
        total += items[i]
    return total + 1000.0 * len(items)


@kernel("(n),(m)->()")
def against(a, b):
    return 1.0 * len(a) - 10.0 * len(b)


@kernel("(n)->(n)")
def reversed_items(items):
    out = np.empty(len(items))
    for i in range(len(items)):
        out[i] = items[len(items) - 1 - i] * 2.0
    return out


@kernel("()->()", batch=True)
def batched(x):
    return x * 5.0 - 2.0


@task("()->()", dtypes="f8")
def plain(x):
    return x * 0.5 + 3.0


@kernel("()->(k),(k)", names=("step", "part"))
def stairs(x):
    count = int(abs(x)) % 4
    first, second = np.empty(count), np.empty(count)
    for i in range(count):
        first[i] = i
        second[i] = x + i
    return first, second


@kernel("()->()")
def wanted(x, modulus=3.0):
    return int(abs(x)) % int(modulus) != 0


@kernel("(x)->()")
def window(values):
    total = 0.0
    for i in range(len(values)):
        total += (i + 1) * values[i]
    return total


@kernel("(y,x)->()")
def window2(values):
    total = 0.0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            total += (3 * i + j + 1) * values[i, j]
    return total


@kernel("(row)->()")
def window_row(values):
    total = 0.0
    for i in range(len(values)):
        total += (i + 1) * values[i]
    return total


@kernel("(x)->()")
def heat(values, c=0.25):
    return values[1] + c * (values[0] - 2.0 * values[1] + values[2])


@kernel("(n),()->()")
def upstream(inputs, own):
    total = own
    for i in range(len(inputs)):
        total += (i + 1) * inputs[i] - own
    return total


@kernel("(n)->()")
def mixed(values, step):
    total = 1.0 * step
    for i in range(len(values)):
        total += values[i] * (0.5 if i % 2 == 0 else 0.25)
    return total


def _init(total, weight):
    total[0] = 0.0
    weight[0] = 0.0


def _step(total, weight, x):
    total[0] += x * x
    weight[0] += 1.0


def _merge(total, weight, later, more):
    total[0] += later[0]
    weight[0] += more[0]


def _final(total, weight):
    return total[0] + weight[0]


squares = reduction(
    state={"total": "f8", "weight": "f8"}, init=_init, step=_step, merge=_merge, final=_final, name="squares"
)
