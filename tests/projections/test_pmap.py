"""The shared map."""

from __future__ import annotations

from projections.pmap import PMap


def test_pmap_is_a_mapping_that_is_only_followed() -> None:
    one = PMap((str(n), n) for n in range(1000))
    two = one.update([("1", None), ("1000", 1000), ("2", 22), ("nobody", None)])
    assert dict(one) == {str(n): n for n in range(1000)}
    assert dict(two) == {**{str(n): n for n in range(1001) if n != 1}, "2": 22}
    assert (len(one), len(two)) == (1000, 1000)
    assert one.update([]) is one
