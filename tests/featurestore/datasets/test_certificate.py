"""The certificate counts what is there: leaks put in on purpose are found, late knowledge, ages and reasons too."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import Place, at

from featurestore.datasets import ages, building
from featurestore.datasets.ages import Ages
from featurestore.datasets.builder import start_dataset
from featurestore.datasets.certificate import CertificateBuilder, LeakCertificate, SliceEvidence
from featurestore.datasets.joins import Join
from featurestore.datasets.naive import naive_latest
from featurestore.pit.questions import REASONS, Answered
from foundation.errors import Conflict


@pytest.fixture
def place(tmp_path):
    one = Place(tmp_path)
    one.create("w", "k", [("k", "Integral"), ("at", "Timestamp"), ("x", "Fractional"), ("y", "String")])
    yield one
    one.close()


def spine_of(*rows):
    return pa.table({"k": [key for key, _ in rows], "ts": pa.array([t for _, t in rows], pa.timestamp("us", "UTC"))})


def evidence_of(join, answered, times, values, *, known=None, strict=False):
    builder = CertificateBuilder((join,), known_asked=known is not None)
    builder.add(0, SliceEvidence(pa.table({"x": values}), answered, times, known, 0, strict))
    return builder.features()[0]


def answered_of(events, known, declared):
    count = len(events)
    matched = np.ones(count, np.bool_)
    return Answered(pa.table({"x": [1.0] * count}), matched, events, known, declared, np.zeros(count, np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 9),
            st.integers(0, 9),
            st.integers(0, 9),
            st.booleans(),
            st.sampled_from([None, 1.0]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
    st.sampled_from([None, 3]),
)
def test_every_leak_put_in_is_found(cells, strict, within):
    """Records that no join should serve: whatever comes, the counts are those of a loop."""
    events, times, known, limit, declared, values = (list(column) for column in zip(*cells, strict=True))
    array = lambda each: np.array(each, np.int64)  # noqa: E731
    found = evidence_of(
        Join("g", 1, (("k", "k"),), ("x",), ("x",), within=within),
        answered_of(array(events), array(known), np.array(declared)),
        array(times),
        pa.array(values, pa.float64()),
        known=array(limit),
        strict=strict,
    )
    filled = [cell for cell in cells if cell[5] is not None]
    if within is None:
        leaks = [cell for cell in filled if (cell[0] >= cell[1] if strict else cell[0] > cell[1])]
    else:
        leaks = [cell for cell in filled if not cell[1] < cell[0] <= cell[1] + within]
    assert found.event_leaks == len(leaks)
    assert found.filled == len(filled)
    assert found.nulls == ({"null in the record": len(cells) - len(filled)} if len(filled) < len(cells) else {})
    assert found.latest_event == (max(cell[0] - cell[1] for cell in filled) / 1e6 if filled else None)
    assert found.declared_share == (sum(cell[4] for cell in filled) / len(filled) if filled else 0)
    if within is None:
        assert found.known_after_row == sum(cell[2] > cell[1] for cell in filled)
        assert found.known_leaks == sum(cell[2] > cell[3] for cell in filled)
    else:
        assert (found.known_after_row, found.known_leaks) == (None, None)


def test_a_leaking_join_fails_the_certificate_and_is_not_saved(place, monkeypatch):
    place.write("w", [{"k": 1, "at": at(1), "x": 1.0}])
    whole = building.answer

    def leaking(snapshot, asked, rows, **options):
        import dataclasses

        got = whole(snapshot, asked, rows, **options)
        return dataclasses.replace(got, event_time=got.event_time + 7_200_000_000)

    monkeypatch.setattr(building, "answer", leaking)
    builder = start_dataset(place, spine_of((1, at(2)), (1, at(9))), "ts").join("w", features="x")
    found = builder.certificate()
    assert not found.passed
    assert (found.event_leaks, found.features[0].latest_event) == (1, 3600.0)
    assert "FAILED" in str(found)
    with pytest.raises(Conflict, match="1 of 2 cells of 'x' leak"):
        found.require()
    with pytest.raises(Conflict, match="leak"):
        builder.save("bad")
    assert place.catalog.find("saved dataset").entries == ()
    assert not place.files.exists("datasets/bad")


def test_late_knowledge_is_counted_and_known_by_removes_it(place):
    place.write(
        "w",
        [
            {"k": 1, "at": at(1), "x": 1.0, "known": at(2)},
            {"k": 1, "at": at(3), "x": 2.0, "write": at(6)},
            {"k": 1, "at": at(4), "x": 3.0, "known": at(4)},
        ],
    )
    builder = start_dataset(place, spine_of((1, at(1)), (1, at(3)), (1, at(4)), (1, at(9))), "ts").join(
        "w", features="x"
    )
    (loose,) = builder.certificate().features
    assert (loose.filled, loose.known_after_row, loose.known_leaks) == (4, 2, None)
    assert loose.declared_share == 0.75
    strict = builder.known_by("row").certificate()
    (feature,) = strict.features
    assert (feature.filled, feature.known_after_row, feature.known_leaks) == (3, 0, 0)
    builder.certificate().require()
    with pytest.raises(Conflict, match="2 of 4 cells"):
        builder.certificate().require(known=True)
    strict.require(known=True)


def test_reasons_are_told_apart(place):
    place.write(
        "w",
        [
            {"k": 1, "at": at(1), "x": 1.0, "y": None},
            {"k": 2, "at": at(1), "deleted": True},
            {"k": 3, "at": at(1), "x": 1.0, "expires": at(2)},
        ],
    )
    rows = spine_of((1, at(2)), (2, at(2)), (3, at(2)), (4, at(2)), (None, at(2)), (1, None), (1, at(99)), (1, at(0)))
    found = start_dataset(place, rows, "ts").join("w", max_age=timedelta(hours=9)).build().certificate
    same = {"deleted": 1, "expired": 1, "no record": 2, "null key or time": 2, "too old": 1}
    x, y = found.features
    assert x.nulls == same
    assert y.nulls == same | {"null in the record": 1}
    assert (found.null_times, found.joins[0].null_keys) == (1, 1)
    assert x.null_rate == 7 / 8
    text = str(found)
    for told in ("rows without a time: 1", "rows with a null key: 1", "max age 32400 s", "x is null", "too old 1"):
        assert told in text


def test_labels_are_judged_the_other_way_round(place):
    place.write("w", [{"k": 1, "at": at(5), "x": 1.0}, {"k": 1, "at": at(6), "x": 2.0}])
    builder = start_dataset(place, spine_of((1, at(4)), (1, at(5)), (1, at(0))), "ts")
    found = builder.join_label("w", features="x", within=timedelta(hours=2)).build()
    assert found.table["x"].to_pylist() == [1.0, 2.0, None]
    (label,) = found.certificate.features
    assert (label.role, label.event_leaks, label.known_after_row) == ("label", 0, None)
    assert label.ages.median == 3600
    early = builder.join_label("w", features="x", within=timedelta(hours=2)).as_of(at(5.5)).build()
    assert early.certificate.features[0].nulls == {"not mature": 2, "no record": 1}


def test_certificates_come_back_from_json(place):
    place.write("w", [{"k": 1, "at": at(1), "x": 1.0, "y": None}])
    rows = spine_of((1, at(2)), (None, at(3)))
    found = start_dataset(place, rows, "ts").join("w").known_by("row").certificate()
    assert LeakCertificate.from_dict(json.loads(found.to_json())) == found
    assert json.loads(found.to_json())["passed"] is True


def test_slices_do_not_change_the_evidence(place):
    rng = np.random.default_rng(3)
    place.write(
        "w",
        [
            {"k": int(k), "at": at(float(t)), "x": float(t), "y": "v" if t > 40 else None}
            for k, t in zip(rng.integers(0, 5, 80), rng.integers(0, 90, 80), strict=True)
        ],
    )
    rows = spine_of(
        *[(int(k), at(float(t))) for k, t in zip(rng.integers(0, 6, 60), rng.uniform(0, 90, 60), strict=True)]
    )
    builder = start_dataset(place, rows, "ts").join("w")
    place.clock.now = lambda: 10**15
    assert builder.certificate(slice_rows=1) == builder.certificate(slice_rows=7) == builder.certificate()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=60), st.integers(1, 60), st.sampled_from([0, 10, 1000]))
def test_quantiles_are_exact_or_near(values, cut, exact):
    limit, ages._EXACT = ages._EXACT, exact
    try:
        one, two = Ages(), Ages()
        one.add(np.array(values, np.int64))
        for start in range(0, len(values), cut):
            two.add(np.array(values[start : start + cut], np.int64))
        found = one.quantiles()
        assert found == two.quantiles() == two.copy().quantiles()
    finally:
        ages._EXACT = limit
    ordered = sorted(values)
    wanted = [ordered[int(share * (len(values) - 1))] / 1e6 for share in (0.5, 0.95)]
    assert (found.min, found.max) == (ordered[0] / 1e6, ordered[-1] / 1e6)
    assert found.exact == (len(values) <= exact)
    tolerance = 0 if found.exact else 1 / 512
    assert [found.median, found.p95] == pytest.approx(wanted, rel=tolerance, abs=0)


def test_a_copy_of_ages_goes_its_own_way():
    one = Ages()
    one.add(np.array([1_000_000]))
    two = one.copy()
    two.add(np.array([3_000_000]))
    assert (one.quantiles().max, two.quantiles().max) == (1.0, 3.0)
    assert Ages().quantiles() is None


# -- the join one should not do ----------------------------------------------------------------------------------------


def test_the_naive_join_counts_leaks_and_wrong_cells(place):
    place.write("w", [{"k": 1, "at": at(n), "x": float(n), "y": "same"} for n in range(10)])
    rows = spine_of((1, at(3)), (1, at(9)), (1, at(50)), (2, at(1)), (1, None))
    builder = start_dataset(place, rows, "ts").join("w")
    found = naive_latest(builder)
    x, y = found.features
    assert (x.filled, x.leaked, x.different) == (4, 1, 2), "row 0 leaks; the row without a time is filled, wrongly"
    assert (y.filled, y.leaked, y.different) == (4, 1, 1), "the leaked text happens to be the same"
    assert (found.cells, found.leaked, found.different) == (10, 2, 3)
    assert naive_latest(builder.boundary("<")).features[0].leaked == 2
    assert "would leak 2 of 10 cells (20.0%) and get 3 wrong" in str(found)
    assert json.loads(found.to_json())["leaked"] == 2


def test_reasons_are_the_kernels():
    assert REASONS[1] == "null key or time"
