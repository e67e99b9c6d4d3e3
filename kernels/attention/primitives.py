"""The pieces both passes are made of. Every mask is an interval, and every loop has two parts.

A causal mask, a sliding window, packed documents and a ragged end all let a query see one run of keys
[lo, hi), and let a key be seen by one run of queries. So a tile of rows visits the columns from its
least lo to its greatest hi, nothing else: first the tiles in the middle that all rows see whole (no mask is
computed there), then in one more loop those before and after them, which some row sees in part.

Logits are kept as x * factor in units of log2, where x is the raw product q.k, or with a softcap
tanh(q.k * inner): the multiplication then merges with the subtraction inside exp2.

Tiles are named after their rows: [ROWS, COLS] scores, [ROWS, WIDTH] operands; WIDTH is the head
dimension D rounded up to a power of two, the columns past D read as zero.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def keys_seen(
    row,
    b,
    T_q,
    T_k,
    window,
    starts,
    ends,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    DOCUMENTS: tl.constexpr,
):
    """[lo, hi) of the keys that each query in `row` sees; rows past T_q take the interval of the last."""
    row = tl.minimum(row, T_q - 1)
    position = row + (T_k - T_q)
    lo = tl.zeros_like(row)
    hi = lo + T_k
    if CAUSAL:
        hi = tl.maximum(position + 1, 0)
    if WINDOW:
        lo = tl.maximum(lo, position - window + 1)
        if not CAUSAL:
            hi = tl.maximum(tl.minimum(hi, position + window), 0)
    if DOCUMENTS:
        lo = tl.maximum(lo, tl.load(starts + b * T_q + row))
        hi = tl.minimum(hi, tl.load(ends + b * T_q + row))
    return lo, hi


@triton.jit
def seen_by(
    row,
    b,
    T_q,
    T_k,
    window,
    starts,
    ends,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    DOCUMENTS: tl.constexpr,
):
    """[lo, hi) of the queries that see each key in `row`; rows past T_k take the interval of the last."""
    row = tl.minimum(row, T_k - 1)
    position = row - (T_k - T_q)
    lo = tl.zeros_like(row)
    hi = lo + T_q
    if CAUSAL:
        lo = tl.maximum(lo, position)
    if WINDOW:
        hi = tl.maximum(tl.minimum(hi, position + window), 0)
        if not CAUSAL:
            lo = tl.maximum(lo, position - window + 1)
    if DOCUMENTS:
        lo = tl.maximum(lo, tl.load(starts + b * T_k + row))
        hi = tl.minimum(hi, tl.load(ends + b * T_k + row))
    return lo, hi


@triton.jit
def visits(lo, hi, COLS: tl.constexpr):
    """first, whole, partial, last: columns [whole, partial) are seen by every row, the rest in part.

    first, whole and partial are multiples of COLS, unless there is nothing past them. Needs lo, hi >= 0; a
    row with hi <= lo sees nothing.
    """
    first = tl.min(lo, 0) // COLS * COLS
    last = tl.max(hi, 0)
    whole = tl.minimum(tl.cdiv(tl.max(lo, 0), COLS) * COLS, last)
    partial = tl.maximum(tl.min(hi, 0) // COLS * COLS, whole)
    return first, whole, partial, last


@triton.jit
def part_of(first, whole, partial, last, PARTIAL: tl.constexpr, BEFORE: tl.constexpr):
    """begin, end of one part of the loop: the whole tiles, or the partial ones as if nothing lay between.

    Partial tiles may lie before the whole ones only if BEFORE.
    """
    begin = whole
    end = partial
    if PARTIAL and BEFORE:
        begin = first
        end = last - (partial - whole)
    elif PARTIAL:
        begin = partial
        end = last
    return begin, end


@triton.jit
def start_of(at, whole, partial, PARTIAL: tl.constexpr, BEFORE: tl.constexpr):
    """The first column of the tile that stands at `at` in a part of `part_of`."""
    if PARTIAL and BEFORE:
        at += tl.where(at < whole, 0, partial - whole)
    return at


@triton.jit
def inside(lo, hi, start, COLS: tl.constexpr, LOWER: tl.constexpr, UPPER: tl.constexpr):
    """[ROWS, COLS] mask of the columns start, start + 1, ... within the interval of each row.

    A bound that no column of the tile can cross need not be compared: registers are short there.
    """
    column = start + tl.arange(0, COLS)
    above = column[None, :] >= lo[:, None]
    below = column[None, :] < hi[:, None]
    if LOWER and UPPER:
        mask = above & below
    elif LOWER:
        mask = above
    else:
        mask = below
    return mask


@triton.jit
def tile_offsets(stride_t, stride_d, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.arange(0, ROWS)[:, None] * stride_t + tl.arange(0, WIDTH)[None, :] * stride_d


@triton.jit
def within(start, T, ROWS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, RAGGED: tl.constexpr):
    """[ROWS, WIDTH] mask of a tile at row `start`: rows before T (when RAGGED), columns before D."""
    rows = start + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    if not RAGGED:
        mask = (columns < D)[None, :]
    elif WIDTH == D:
        mask = (rows < T)[:, None]
    else:
        mask = (rows < T)[:, None] & (columns < D)[None, :]
    return mask


@triton.jit
def load_tile(
    base,
    start,
    T,
    stride_t,
    stride_d,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """[ROWS, WIDTH] rows start, start + 1, ... of one head; rows from T on (when RAGGED) read as zero."""
    pointers = base + tl.cast(start, tl.int64) * stride_t + tile_offsets(stride_t, stride_d, ROWS, WIDTH)
    if RAGGED or WIDTH != D:
        tile = tl.load(pointers, mask=within(start, T, ROWS, WIDTH, D, RAGGED), other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def store_tile(
    base, tile, start, T, stride_t, stride_d, ROWS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr
):
    pointers = base + tl.cast(start, tl.int64) * stride_t + tile_offsets(stride_t, stride_d, ROWS, WIDTH)
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=within(start, T, ROWS, WIDTH, D, True))


@triton.jit
def load_row(base, start, T, COLS: tl.constexpr, RAGGED: tl.constexpr):
    """[COLS] numbers of contiguous float32 from `start`; from T on (when RAGGED) zero."""
    at = start + tl.arange(0, COLS)
    if RAGGED:
        row = tl.load(base + at, mask=at < T, other=0.0)
    else:
        row = tl.load(base + at)
    return row


@triton.jit
def tanh(x, ACCURATE: tl.constexpr):
    """To an absolute 2e-7; ACCURATE to a relative 3e-7: a series where the quotient cancels."""
    if ACCURATE:
        shrunk = tl.exp2(tl.abs(x) * -2.8853900817779268)
        y = (1.0 - shrunk) / (1.0 + shrunk)
        y = tl.where(x < 0.0, -y, y)
        square = x * x
        series = -0.3333333333 + square * (0.1333333333 + square * (-0.0539682540 + square * 0.0218694885))
        y = tl.where(tl.abs(x) < 0.3, x + x * square * series, y)
    else:
        y = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))
    return y


@triton.jit
def products(rows, columns, inner, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr):
    """x of [ROWS, COLS]: rows . columns, squashed by the softcap. The logit is x * factor."""
    x = tl.dot(rows, tl.trans(columns), input_precision=PRECISION)
    if SOFTCAP:
        x = tanh(x * inner, rows.dtype == tl.float32)
    return x


@triton.jit
def slopes(x, p, SOFTCAP: tl.constexpr):
    """[ROWS, COLS] weights times the derivative of the softcap: d(q.k) = slopes * (dp - delta) * scale.

    Taken before dp, so that x need not outlive the next product.
    """
    if SOFTCAP:
        p = p * (1.0 - x * x)
    return p
