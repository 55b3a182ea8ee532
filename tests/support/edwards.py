"""Edwards25519 in plain integers (RFC 8032, section 5.1): slow, exact, and independent of every library.

Only for tests that need points which no library hands out: torsion, non-canonical encodings, crafted keys.
"""

from __future__ import annotations

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
_SQRT_M1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(one: Point, other: Point) -> Point:
    """The sum, by the complete affine law."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P
    return x, y


def multiply(scalar: int, point: Point) -> Point:
    """`scalar` times `point`; the scalar is not reduced. One division, at the end."""
    found, power = (0, 1, 1), (*point, 1)
    while scalar:
        if scalar & 1:
            found = _add_projective(found, power)
        power, scalar = _add_projective(power, power), scalar >> 1
    x, y, z = found
    inverse = pow(z, P - 2, P)
    return x * inverse % P, y * inverse % P


def _add_projective(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    """RFC 8032's complete law without divisions: (X : Y : Z) with x = X/Z and y = Y/Z."""
    (x1, y1, z1), (x2, y2, z2) = one, other
    a = z1 * z2 % P
    b = a * a % P
    c, d = x1 * x2 % P, y1 * y2 % P
    e = D * c * d % P
    f, g = b - e, b + e
    x = a * f * ((x1 + y1) * (x2 + y2) - c - d) % P
    return x, a * g * (d + c) % P, f * g % P


def negate(point: Point) -> Point:
    return -point[0] % P, point[1]


def recover_x(y: int, sign: int) -> int | None:
    """The x of a point with this y and the parity `sign`, None when there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _SQRT_M1 % P
    if (x * x - square) % P:
        return None
    return -x % P if x % 2 != sign else x


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """The point, canonical or not: y is reduced, and the sign of x = 0 is not looked at."""
    value = int.from_bytes(data, "little")
    y = (value & (1 << 255) - 1) % P
    x = recover_x(y, value >> 255)
    return None if x is None else (x, y)


def encodings(point: Point) -> list[bytes]:
    """Every 32-byte string that a lenient decoder takes for the point, the canonical one first."""
    x, y = point
    signs = [x & 1] if x else [0, 1]
    return [
        (value | sign << 255).to_bytes(32, "little")
        for sign in signs
        for value in (y, y + P)
        if value < 1 << 255
    ]


_BASE_Y = 4 * pow(5, P - 2, P) % P
BASE: Point = (recover_x(_BASE_Y, 0) or 0, _BASE_Y)


def torsion() -> list[Point]:
    """The eight points whose order divides the cofactor, multiples of one of order 8."""
    y = 2
    while True:
        x = recover_x(y, 0)
        if x is not None:
            point = multiply(L, (x, y))
            if multiply(4, point) != IDENTITY:
                return [multiply(n, point) for n in range(8)]
        y += 1
