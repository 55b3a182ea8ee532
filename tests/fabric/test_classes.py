"""The numbers of classes and modes are on the wire and in seals; they never change."""

from __future__ import annotations

from fabric.classes import CLASS_NAMES, EXPRESS, Mode, TrafficClass


def test_numbers_on_the_wire() -> None:
    assert [(c.name.lower(), int(c)) for c in TrafficClass] == [
        ("control", 0),
        ("dns", 1),
        ("interactive", 2),
        ("reliable", 3),
        ("bulk", 4),
        ("droppable", 5),
    ]
    assert [(m.name, int(m)) for m in Mode] == [("STREAM", 0), ("DATAGRAM", 1), ("PROBE", 2)]


def test_names_as_leases_write_them() -> None:
    assert CLASS_NAMES["bulk"] is TrafficClass.BULK
    assert len(CLASS_NAMES) == len(TrafficClass)


def test_express_is_what_goes_first() -> None:
    assert sorted(EXPRESS) == [TrafficClass.CONTROL, TrafficClass.DNS, TrafficClass.INTERACTIVE]
