"""The product of moved branches and its two derivatives on a GPU.

With O_r(c) the offset of channel c in branch r (zero outside the map):

- ``fwd``: y[p, o] = sum_r sum_c weight[r, o, c] x[p + O_r(c), c]
- ``bwd_dx``: dx[q, c] = sum_r sum_o weight[r, o, c] dy[q - O_r(c), o]
- ``bwd_dw``: dweight[r, o, c] = sum_p dy[p, o] x[p + O_r(c), c]

Maps are (groups * images, H, W, channels) and contiguous: the images of one
group share a weight. A program takes BLOCK_M positions of one group. They
follow each other in memory, or, with TILE_W > 0, form a rectangle TILE_W
positions wide, so that most neighbors above and below are in the same tile.

Channels repeat their offsets with period SIZE_H * SIZE_W. The n-th channels
of all periods are called class n. Class 0 stays in place in every branch.
Adjacent channels have different classes. So maps are read as whole vectors,
once for each offset, and the value of each channel is selected in registers.
"""

import triton
import triton.language as tl


@triton.jit
def _positions(
    first,  # tile that a program starts with, and
    t,  # how many tiles it has gone on
    images,
    height,
    width,
    BLOCK_M: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """Where a tile lies in its group.

    Returns its first position (int64), and of all its positions: the
    distance to the first, row and column in their map, and whether they
    exist; (BLOCK_M,) each.
    """
    m = tl.arange(0, BLOCK_M)
    if TILE_W == 0:
        start = first.to(tl.int64) * BLOCK_M
        # 64-bit division is slow, and this one is the same for all t.
        row = ((start // width) % height).to(tl.int32)
        j = (start % width).to(tl.int32) + t * BLOCK_M + m
        i = (row + j // width) % height
        j = j % width
        origin = start + t * BLOCK_M
        distance = m.to(tl.int64)
        exists = origin + m < images.to(tl.int64) * height * width
    else:
        across = tl.cdiv(width, TILE_W)
        row = ((first + t) // across) * (BLOCK_M // TILE_W)
        column = ((first + t) % across) * TILE_W
        i = row + m // TILE_W
        j = column + m % TILE_W
        origin = row.to(tl.int64) * width + column
        distance = (m // TILE_W).to(tl.int64) * width + m % TILE_W
        exists = (i < images * height) & (j < width)
        i = i % height
    return origin, distance, i, j, exists


@triton.jit
def _offset(
    n,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
):
    """Offset (dy, dx) of the channels of class n."""
    dy = (n + SIZE_H // 2) % SIZE_H - SIZE_H // 2
    dx = (n // SIZE_H + SIZE_W // 2) % SIZE_W - SIZE_W // 2
    return dy, dx


@triton.jit
def _read(
    maps,
    places,
    dy,
    dx,
    i,
    j,
    exists,
    exists_c,
    height,
    width,
    CHANNELS: tl.constexpr,
):
    """Rows of channels (BLOCK_M, BLOCK) at an offset, zero outside."""
    inside = (exists & (i + dy >= 0) & (i + dy < height)
              & (j + dx >= 0) & (j + dx < width))
    move = (dy * width.to(tl.int64) + dx) * CHANNELS
    return tl.load(maps + move + places,
                   mask=inside[:, None] & exists_c[None, :], other=0.)


@triton.jit
def _read_moved(
    still,
    maps,
    places,
    class_c,
    i,
    j,
    exists,
    exists_c,
    height,
    width,
    CHANNELS: tl.constexpr,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
):
    """Every channel at its own offset, given all of them in place."""
    moved = still
    for n in tl.static_range(1, SIZE_H * SIZE_W):
        dy, dx = _offset(n, SIZE_H, SIZE_W)
        tile = _read(maps, places, dy, dx, i, j, exists, exists_c, height,
                     width, CHANNELS)
        moved = tl.where((class_c == n)[None, :], tile, moved)
    return moved


@triton.jit(do_not_specialize=['tiles', 'images', 'height', 'width'])
def cycle_product_fwd_kernel(
    x,
    weight,
    bias,  # or None
    shortcut,  # or None
    y,
    tiles,
    images,
    height,
    width,
    C: tl.constexpr,
    OUT: tl.constexpr,
    BRANCHES: tl.constexpr,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_W: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (group, tile, BLOCK_N outputs) of a grid in that order."""
    blocks_n: tl.constexpr = (OUT + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    group = (pid // blocks_n // tiles).to(tl.int64)
    origin, distance, i, j, exists = _positions(
        pid // blocks_n % tiles, 0, images, height, width, BLOCK_M, TILE_W)
    origin += group * images * height * width
    o = pid % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    x += origin * C
    weight += group * (BRANCHES * OUT * C)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, C, BLOCK_K):
        c = k + tl.arange(0, BLOCK_K)
        places = distance[:, None] * C + c[None, :]
        still = _read(x, places, 0, 0, i, j, exists, c < C, height, width, C)
        moved = _read_moved(still, x, places, c % (SIZE_H * SIZE_W), i, j,
                            exists, c < C, height, width, C, SIZE_H, SIZE_W)
        # (BLOCK_K, BLOCK_N), vectors along k
        w = weight + o[None, :] * C + c[:, None]
        exists_w = (o < OUT)[None, :] & (c < C)[:, None]
        acc = tl.dot(moved, tl.load(w, mask=exists_w, other=0.), acc,
                     input_precision=PRECISION)
        if BRANCHES == 3:
            moved = _read_moved(
                still, x, places, c % (SIZE_H * SIZE_W), i, j, exists, c < C,
                height, width, C, SIZE_W, SIZE_H)
            acc = tl.dot(moved, tl.load(w + OUT * C, mask=exists_w, other=0.),
                         acc, input_precision=PRECISION)
            acc = tl.dot(still,
                         tl.load(w + 2 * OUT * C, mask=exists_w, other=0.),
                         acc, input_precision=PRECISION)

    places = origin * OUT + (distance[:, None] * OUT + o[None, :])
    mask = exists[:, None] & (o < OUT)[None, :]
    if bias is not None:
        acc += tl.load(bias + group * OUT + o, mask=o < OUT,
                       other=0.).to(tl.float32)[None, :]
    if shortcut is not None:
        acc += tl.load(shortcut + places, mask=mask, other=0.).to(tl.float32)
    tl.store(y + places, acc.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=['tiles', 'images', 'height', 'width'])
def cycle_product_bwd_kernel_dx(
    dy,
    weight,
    dx,
    tiles,
    images,
    height,
    width,
    C: tl.constexpr,
    OUT: tl.constexpr,
    BRANCHES: tl.constexpr,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE_W: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (group, tile, BLOCK_N channels) of a grid in that order.

    One product for each offset, with the weights of the channels that moved
    there and zeros for the others: more products than needed, but every
    access is a whole vector.
    """
    PERIOD: tl.constexpr = SIZE_H * SIZE_W
    blocks_n: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    group = (pid // blocks_n // tiles).to(tl.int64)
    origin, distance, i, j, exists = _positions(
        pid // blocks_n % tiles, 0, images, height, width, BLOCK_M, TILE_W)
    origin += group * images * height * width
    c = pid % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    class_c = (c % PERIOD)[None, :]
    dy += origin * OUT
    weight += group * (BRANCHES * OUT * C)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, OUT, BLOCK_K):
        o = k + tl.arange(0, BLOCK_K)
        places = distance[:, None] * OUT + o[None, :]
        # (BLOCK_K, BLOCK_N), vectors along n
        w = weight + o[:, None] * C + c[None, :]
        exists_w = (o < OUT)[:, None] & (c < C)[None, :]
        along = tl.load(w, mask=exists_w, other=0.)
        if BRANCHES == 3:
            across = tl.load(w + OUT * C, mask=exists_w, other=0.)
            still = tl.load(w + 2 * OUT * C, mask=exists_w, other=0.)
            both = along.to(tl.float32) + across.to(tl.float32)
            still = still.to(tl.float32) + tl.where(class_c == 0, both, 0.)
            still = still.to(along.dtype)
        else:
            still = tl.where(class_c == 0, along, 0.)
        tile = _read(dy, places, 0, 0, i, j, exists, o < OUT, height, width,
                     OUT)
        acc = tl.dot(tile, still, acc, input_precision=PRECISION)
        for n in tl.static_range(1, PERIOD):
            move_y, move_x = _offset(n, SIZE_H, SIZE_W)
            tile = _read(dy, places, -move_y, -move_x, i, j, exists, o < OUT,
                         height, width, OUT)
            acc = tl.dot(tile, tl.where(class_c == n, along, 0.), acc,
                         input_precision=PRECISION)
            if BRANCHES == 3:
                move_y, move_x = _offset(n, SIZE_W, SIZE_H)
                tile = _read(dy, places, -move_y, -move_x, i, j, exists,
                             o < OUT, height, width, OUT)
                acc = tl.dot(tile, tl.where(class_c == n, across, 0.), acc,
                             input_precision=PRECISION)

    places = origin * C + (distance[:, None] * C + c[None, :])
    tl.store(dx + places, acc.to(dx.dtype.element_ty),
             mask=exists[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=['tiles', 'images', 'height', 'width'])
def cycle_product_bwd_kernel_dx_one_branch(
    dy,
    weight,
    dx,
    tiles,
    images,
    height,
    width,
    C: tl.constexpr,
    OUT: tl.constexpr,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (group, tile, BLOCK_N channels) of a grid in that order.

    For one branch along one direction: one product, whose results then move
    within the tile. Positions are numbered along that direction, line after
    line, so that they move to neighbours; a tile has HALO more at each end
    than it writes.
    """
    SIZE: tl.constexpr = SIZE_H * SIZE_W
    HALO: tl.constexpr = SIZE // 2
    blocks_n: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    group = (pid // blocks_n // tiles).to(tl.int64)
    if SIZE_W > 1:
        length, lines = width, height
    else:
        length, lines = height, width
    start = ((pid // blocks_n % tiles).to(tl.int64)
             * (BLOCK_M - 2 * HALO))
    m = tl.arange(0, BLOCK_M)
    number = start + m - HALO
    exists = (number >= 0) & (number < images.to(tl.int64) * height * width)
    # Along the line; HALO lengths more keep what is divided positive.
    along = (start % length).to(tl.int32) + m + HALO * (length - 1)
    if SIZE_W > 1:
        position = number
    else:
        line = start // length + (along // length - HALO)
        position = (line // lines * height + along % length) * width
        position += line % lines
    along = along % length
    c = pid % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    dy += group * images * height * width * OUT
    dx += group * images * height * width * C
    weight += group * (OUT * C)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, OUT, BLOCK_K):
        o = k + tl.arange(0, BLOCK_K)
        tile = tl.load(dy + (position[:, None] * OUT + o[None, :]),
                       mask=exists[:, None] & (o < OUT)[None, :], other=0.)
        # (BLOCK_K, BLOCK_N), vectors along n
        w = tl.load(weight + o[:, None] * C + c[None, :],
                    mask=(o < OUT)[:, None] & (c < C)[None, :], other=0.)
        acc = tl.dot(tile, w, acc, input_precision=PRECISION)

    move = ((c + HALO) % SIZE - HALO)[None, :]
    source = m[:, None] - move
    source = tl.minimum(tl.maximum(source, 0), BLOCK_M - 1)
    moved = tl.gather(acc.to(dx.dtype.element_ty), source, 0)
    inside = (along[:, None] >= move) & (along[:, None] - move < length)
    written = exists & (m >= HALO) & (m < BLOCK_M - HALO)
    tl.store(dx + (position[:, None] * C + c[None, :]),
             tl.where(inside, moved, 0.),
             mask=written[:, None] & (c < C)[None, :])


@triton.jit(
    do_not_specialize=['tiles', 'images', 'height', 'width', 'parts'])
def cycle_product_bwd_kernel_dw(
    x,
    dy,
    partial,
    tiles,
    images,
    height,
    width,
    parts,
    C: tl.constexpr,
    OUT: tl.constexpr,
    BRANCHES: tl.constexpr,
    SIZE_H: tl.constexpr,
    SIZE_W: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    TILE_W: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (group, part, BLOCK_N outputs, BLOCK_C channels), so ordered.

    Each sums over one of ``parts`` runs of tiles, into its own part of
    ``partial`` (groups, parts, R * O * C + O): of the weight's gradient,
    then of the bias's.
    """
    blocks_n: tl.constexpr = (OUT + BLOCK_N - 1) // BLOCK_N
    blocks_c: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    pid = tl.program_id(0)
    block_c = pid % blocks_c
    part = pid // (blocks_c * blocks_n)
    group = (part // parts).to(tl.int64)
    o = pid // blocks_c % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    run = tl.cdiv(tiles, parts)
    first = part % parts * run
    x += group * images * height * width * C
    dy += group * images * height * width * OUT

    acc = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
    if BRANCHES == 3:
        acc_across = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
        acc_still = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
    # The gradient of the bias, 16 times over: the least a product can do.
    ones = tl.full((BLOCK_M, 16), 1., dtype=dy.dtype.element_ty)
    acc_bias = tl.zeros((BLOCK_N, 16), dtype=tl.float32)
    for t in range(0, tl.minimum(run, tiles - first)):
        origin, distance, i, j, exists = _positions(
            first, t, images, height, width, BLOCK_M, TILE_W)
        grad = tl.trans(tl.load(
            dy + origin * OUT + (distance[:, None] * OUT + o[None, :]),
            mask=exists[:, None] & (o < OUT)[None, :], other=0.))
        places = distance[:, None] * C + c[None, :]
        tile = x + origin * C
        still = _read(tile, places, 0, 0, i, j, exists, c < C, height, width,
                      C)
        moved = _read_moved(still, tile, places, c % (SIZE_H * SIZE_W), i, j,
                            exists, c < C, height, width, C, SIZE_H, SIZE_W)
        acc = tl.dot(grad, moved, acc, input_precision=PRECISION)
        if BRANCHES == 3:
            moved = _read_moved(
                still, tile, places, c % (SIZE_H * SIZE_W), i, j, exists,
                c < C, height, width, C, SIZE_W, SIZE_H)
            acc_across = tl.dot(grad, moved, acc_across,
                                input_precision=PRECISION)
            acc_still = tl.dot(grad, still, acc_still,
                               input_precision=PRECISION)
        acc_bias = tl.dot(grad, ones, acc_bias, input_precision='ieee')

    partial += part.to(tl.int64) * (BRANCHES * OUT * C + OUT)
    places = o[:, None] * C + c[None, :]
    mask = (o < OUT)[:, None] & (c < C)[None, :]
    tl.store(partial + places, acc, mask=mask)
    if BRANCHES == 3:
        tl.store(partial + OUT * C + places, acc_across, mask=mask)
        tl.store(partial + 2 * OUT * C + places, acc_still, mask=mask)
    if block_c == 0:
        tl.store(partial + BRANCHES * OUT * C + o, tl.max(acc_bias, 1),
                 mask=o < OUT)
