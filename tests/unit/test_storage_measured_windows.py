"""What history keeps of an outcome whose window the scheduler has measured."""

from datetime import timedelta

import msgspec
from msgspec import structs

from bus.contract.messages import AgentState, GpuReport, GpuTime, Incident, Seconds, encode
from storage.engine.dictionary import Dictionaries
from storage.engine.rows import MEASURED, NOT_TOLD, Arrival, FullRow, microseconds
from storage.ingest.decode import decode_batch, full_row
from tests.storage_states import GPU, START, gpu, state

SECOND = timedelta(seconds=1)
HALF_DOWN = Seconds(up=450.0, down=450.0)


def kept(one: AgentState) -> FullRow:
    return full_row(Arrival(1, "a", encode(one)), Dictionaries([], []))


def test_the_window_is_where_the_scheduler_measured_it_whatever_the_host_labels():
    since = START - 900 * SECOND
    one = state("a", 1, START, HALF_DOWN, until=START + timedelta(days=400), since=since)
    row = kept(one)
    assert (row.until_ms, row.since_ms, row.window_ms) == (None, 0, None)


def test_a_healthy_window_takes_the_fast_path_and_lies_there_too():
    since = START - 900 * SECOND
    one = state("a", 1, START, until=START + timedelta(days=400), since=since)
    rows = decode_batch([Arrival(1, "a", encode(one))], Dictionaries([], [])).healthy
    assert (rows.until_ms.tolist(), rows.since_ms.tolist()) == ([MEASURED], [0])


def test_the_start_of_the_enrolment_is_kept_where_the_outcome_tells_it():
    enrolled_at = START - 3600 * SECOND
    odd = timedelta(microseconds=789)
    told = state("a", 1, START, since=START - 900 * SECOND, enrolled_at=enrolled_at + odd)
    silent = state("a", 2, START, since=START - 900 * SECOND)
    batch = [Arrival(i, "a", encode(one)) for i, one in enumerate((told, silent))]
    healthy = decode_batch(batch, Dictionaries([], [])).healthy
    enrolled_us = microseconds(enrolled_at)
    assert healthy.enrolled_us.tolist() == [enrolled_us, NOT_TOLD]
    assert [kept(told).enrolled_us, kept(silent).enrolled_us] == [enrolled_us, None]


def test_gpus_of_a_healthy_host_need_not_report_the_time_that_was_admitted():
    since = START - 900 * SECOND
    gpus = (gpu(Seconds(up=899.6)), gpu(Seconds(up=899.7), uuid="GPU-2"))
    one = state("a", 1, START, gpus=gpus, since=since)
    assert len(decode_batch([Arrival(1, "a", encode(one))], Dictionaries([], [])).healthy) == 1


def test_a_miss_keeps_the_begin_of_its_open_window():
    row = kept(state("a", 1, START, None, since=START - 60 * SECOND))
    assert (row.up_ms, row.until_ms, row.since_ms) == (None, None, 60_000)


def test_a_miss_of_before_has_no_window():
    row = kept(state("a", 1, START, None))
    assert (row.until_ms, row.since_ms) == (None, None)


def test_gpus_have_the_time_that_was_admitted_and_the_state_that_was_reported():
    times = (GpuTime(GPU, Seconds(down=900.0)), GpuTime("GPU-2", HALF_DOWN))
    gpus = (
        gpu(Seconds(up=700.0), state="degraded", reasons=("hot",)),
        gpu(Seconds(up=900.0), uuid="GPU-2", index=1),
    )
    row = kept(_with(times, gpus))
    assert [one.seconds for one in row.gpus] == [Seconds(down=900.0), HALF_DOWN]
    assert [one.uptime_percent for one in row.gpus] == [0.0, 50.0]
    assert [one.state for one in row.gpus] == ["degraded", "up"]
    assert row.gpus[0].reasons == ("hot",)
    assert row.gpus[1].index == 1


def test_an_expected_gpu_that_is_not_in_the_report_has_a_row():
    row = kept(_with((GpuTime(GPU, Seconds(down=900.0)),), ()))
    (found,) = row.gpus
    assert (found.uuid, found.state, found.reasons) == (GPU, "down", ("unreported",))


def test_gpus_without_time_of_their_own_have_that_of_the_host():
    gpus = (gpu(Seconds(up=1.0), state="degraded", reasons=("hot",)),)
    (found,) = kept(_with((), gpus)).gpus
    assert (found.seconds, found.uptime_percent, found.state) == (HALF_DOWN, 50.0, "degraded")


def test_incidents_are_moved_onto_our_calendar_by_as_much_as_the_label_of_the_window_is_off():
    away = timedelta(hours=8)
    down = Incident(
        gpu=GPU,
        state="down",
        reason="lost",
        since=START + away - 450 * SECOND,
        until=START + away,
    )
    one = state("a", 1, START, HALF_DOWN, until=START + away, incidents=(down,), since=START)
    (found,) = kept(one).incidents
    assert (found.since, found.until) == (START - 450 * SECOND, START)


def test_an_incident_that_cannot_be_moved_stays_where_it_was():
    label = START.replace(year=9998)
    old = Incident(gpu=None, state="down", reason="lost", since=START.replace(year=1970, month=1))
    one = state("a", 1, START, HALF_DOWN, until=label, incidents=(old,), since=START)
    (found,) = kept(one).incidents
    assert microseconds(found.since) >= 0


def test_remarks_are_kept_and_simulated_is_one_of_them():
    one = state("a", 1, START, HALF_DOWN, since=START, remarks=("unheard",))
    assert kept(one).remarks == '["unheard"]'
    report = msgspec.json.decode(bytes(one.last.report)) | {"simulated": True}
    last = structs.replace(one.last, report=msgspec.Raw(msgspec.json.encode(report)))
    assert kept(structs.replace(one, last=last)).remarks == '["unheard","simulated"]'


def test_a_refused_report_is_evidence():
    row = kept(state("a", 1, START, None, since=START, refused_report='{"up":1e9}'))
    assert row.evidence is not None
    assert (row.evidence.payload, row.evidence.signature) == ('{"up":1e9}', "")


def _with(times: tuple[GpuTime, ...], gpus: tuple[GpuReport, ...]) -> AgentState:
    one = state("a", 1, START, HALF_DOWN, gpus=gpus, since=START - 900 * SECOND)
    return structs.replace(one, last=structs.replace(one.last, gpus=times))
