"""Phases share the time; a process that hangs, dies or says nothing costs the rows that it was at and no others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import zoo
from benchmarks.on_gpu import __main__ as on_gpu
from benchmarks.on_gpu import calls, conductor, joined, table
from benchmarks.on_gpu.conductor import SHARES, Conductor, Phase
from benchmarks.on_gpu.phase import SUITES, suite_of
from benchmarks.peers import ROW_KINDS
from tests.refusals import refused
from zoo.bench import record
from zoo.bench.suite import read_suite
from zoo.schema.errors import UsageError

# What a phase's process is replaced by: it takes the suite's rows in turn and does with each what `plan` says.
CHILD = """
import json, sys, time
from pathlib import Path
from benchmarks.peers import ROW_KINDS
from benchmarks.on_gpu.phase import suite_of
from zoo.bench import record, run
from zoo.bench.suite import read_suite
name, folder, seconds, plan = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
suite = read_suite(suite_of(name, device="cpu", tiny=True), kinds=ROW_KINDS)
known = record.unfinished(suite, folder)
made = known or record.begin(suite)
done = {r["id"] for r in made["rows"]}
for row, act in zip(suite.rows, plan):
    if row.id in done:
        continue
    until = time.time() + (0.1 if act == "hang" else 60)
    made["run"]["doing"] = {"rows": [row.id], "names": [row.asked.name], "until": until}
    record.write(made, folder)
    if act == "hang":
        time.sleep(60)
    if act == "die":
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)
    if act == "raise":
        sys.exit("the device said no")
    if act == "broken":  # as a device that is past use: its rows are recorded, and all that comes after fails
        made["rows"].append(record.row_of(row, "failed", "an illegal memory access"))
        record.write(made, folder)
        sys.exit("an illegal memory access")
    reason = run.NOT_YET if act == "judge" else "a test"
    made["rows"].append(record.row_of(row, "measured") | {"quality": record.quality(reason)})
    if act == "judge":
        record.write(made, folder)
        sys.exit("judging took too long")
    if act == "silent":
        made["rows"].pop()
        made["run"]["doing"] = None
        record.write(made, folder)
        sys.exit("it never gets further")
made["run"] |= {"doing": None, "complete": True}
record.write(made, folder)
"""


class Played(Conductor):
    """Its processes do what is planned."""

    plan: tuple[str, ...] = ("measure",) * 3

    def command(self, name: str, folder: Path, seconds: float) -> list[str]:
        return [sys.executable, "-c", CHILD, name, str(folder), str(seconds), json.dumps(self.plan)]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(conductor, "LEAST", 0.1)
    monkeypatch.setattr(conductor, "CPU_GRACE", 0.5)
    monkeypatch.setattr(conductor, "RESERVE", 0.0)


def played(out, plan, **more):
    made = Played(out=out, device="cpu", seconds=60.0, tiny=True, phases=("quality", "correct")[1:], **more)
    made.plan = plan
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "reason"),
    [("hang", "ran past its deadline"), ("die", "signal 11"), ("raise", "exit code 1: the device said no")],
)
def test_a_row_that_takes_its_process_along_is_blamed_and_the_next_go_on(act, reason, tmp_path, capfd):
    (phase,) = played(tmp_path, ("measure", act, "measure")).run()
    assert [row["status"] for row in phase.record["rows"]] == ["measured", "failed", "measured"]
    assert reason in phase.record["rows"][1]["reason"]
    assert phase.reason is None  # the process after it ended well
    whole = joined.join([phase])
    assert table.failed(whole, [phase]).startswith("1 rows failed")


@pytest.mark.slow
def test_a_process_that_dies_after_its_rows_were_recorded_is_followed_by_another(tmp_path, capfd):
    (phase,) = played(tmp_path, ("broken", "measure", "broken", "measure")).run()
    assert [row["status"] for row in phase.record["rows"]] == ["failed", "measured", "failed", "measured"]
    assert phase.reason is None


@pytest.mark.slow
def test_a_row_whose_judging_takes_its_process_along_keeps_its_speed_and_is_not_measured_again(tmp_path, capfd):
    (phase,) = played(tmp_path, ("judge", "measure")).run()
    assert [row["status"] for row in phase.record["rows"]] == ["measured", "measured"]
    assert phase.record["rows"][0]["quality"]["reason"].endswith("exit code 1: judging took too long")
    assert phase.reason is None


@pytest.mark.slow
def test_a_process_that_adds_nothing_is_the_last(tmp_path, capfd):
    made = played(tmp_path, ("measure", "broken", "silent"))
    (phase,) = made.run()
    assert len(made.children) == 2  # the first ends after "broken", the second in "silent" without progress
    assert [row["status"] for row in phase.record["rows"]] == ["measured", "failed"]
    assert phase.reason.endswith("it never gets further")


def test_nothing_that_was_started_is_left_when_it_is_interrupted(tmp_path, monkeypatch, capfd):
    made, naps = played(tmp_path, ("hang",)), []

    def interrupted(seconds):
        naps.append(seconds)
        if len(naps) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(conductor.time, "sleep", interrupted)
    (phase,) = made.run()
    assert made.interrupted
    assert phase.reason == "it was interrupted"
    assert made.children
    assert all(child.poll() is not None for child in made.children)


@pytest.mark.slow
def test_what_was_measured_before_an_interruption_is_kept(tmp_path, monkeypatch, capfd):
    made, newest = played(tmp_path, ("measure", "hang")), conductor.newest

    def interrupted(folder):
        found = newest(folder)
        if found is not None and found["rows"] and not made.interrupted:
            monkeypatch.setattr(conductor, "newest", newest)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(conductor, "newest", interrupted)
    whole = joined.join(made.run())
    assert [row["status"] for row in whole["rows"]] == ["measured"]
    assert (whole["run"]["complete"], whole["run"]["doing"]) == (False, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "a-file"], "--out: 'a-file' is no folder"), (["--out", "a-file/x"], "'a-file/x' can't be made"),
        (["--out", "."], "'work' holds 'thesis', which is none of this command's"),
        (["--out", "x", "--start", "a-file"], "--start: 'a-file' is no folder"),
        (["--out", "x", "--start", "nowhere"], "--start: 'nowhere' is no folder"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_runs(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    Path("work", "thesis").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["on_gpu", "--device", "cpu", "--tiny", *words])
    with pytest.raises(SystemExit) as ended:
        on_gpu.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert Path("work", "thesis").is_dir()


def test_time_is_shared_by_weight_and_what_is_left_over_goes_on(tmp_path, monkeypatch):
    clock, given = [0.0], {}
    monkeypatch.setattr(conductor.time, "monotonic", lambda: clock[0])

    def phase(self, name, seconds):
        given[name] = seconds
        clock[0] += 10.0  # each needs little
        return Phase(name)

    monkeypatch.setattr(Conductor, "_phase", phase)
    Conductor(out=tmp_path, device="cpu", seconds=460.0, began=0.0).run()
    assert given["correct"] == pytest.approx(460.0 * SHARES["correct"] / sum(SHARES.values()))
    after = {name: share for name, share in SHARES.items() if name != "correct"}
    assert given["train"] == pytest.approx(450.0 * after["train"] / sum(after.values()))
    assert given["speed"] == pytest.approx(430.0)


WAITS = """
import sys, time
from pathlib import Path
turn = Path(sys.argv[1])
print("prepared", flush=True)
while not turn.exists():
    time.sleep(0.01)
print("for", round(float(turn.read_text()) - time.time()), flush=True)
"""


def test_training_is_prepared_beside_the_phase_before_and_told_when_it_ends(tmp_path, monkeypatch, capfd):
    made = played(tmp_path, ("measure",) * 3)
    made.device, made.phases, made.data = "cuda", ("correct", "train"), "images.zip"

    def command(self, name, folder, seconds):
        if name == "correct":
            return Played.command(self, name, folder, seconds)
        return [sys.executable, "-c", WAITS, str(folder / "turn")]

    monkeypatch.setattr(made, "command", command.__get__(made))
    began, trained = made.run()
    assert (began.reason, trained.reason) == (None, None)
    said = capfd.readouterr().err
    assert said.index("[correct]") > 0
    assert said.index("[train] prepared") < said.index("[train] for ")


def waiting(name, folder, seconds):
    return [sys.executable, "-c", WAITS, str(folder / "turn")]


def test_what_is_timed_loads_beside_the_phase_before_and_nothing_loads_beside_it(tmp_path, monkeypatch, capfd):
    made, order = played(tmp_path, ()), []
    made.device, made.phases = "cuda", ("correct", "quality", "speed")
    prepare, process = made._prepare, made._process
    monkeypatch.setattr(made, "command", waiting)
    monkeypatch.setattr(made, "_ahead", lambda seconds: made._started("ahead", [sys.executable, "-c", ""])[0])
    monkeypatch.setattr(made, "_prepare", lambda name: (order.append(f"prepare {name}"), prepare(name)))

    def run(name, folder, seconds):
        order.append(name)
        return process(name, folder, seconds) if name in conductor.TIMED else None

    monkeypatch.setattr(made, "_process", run)
    assert [phase.reason for phase in made.run()] == [None] * 3
    assert order == ["prepare quality", "prepare speed", "correct", "quality", "speed"]


def test_a_process_that_died_while_it_waited_is_replaced(tmp_path, monkeypatch, capfd):
    made = played(tmp_path, ("measure",))
    child = made._started("correct", [sys.executable, "-c", "import sys; sys.exit('too early')"])
    child[0].wait()
    made.prepared["correct"] = child
    (phase,) = made.run()
    assert (phase.reason, len(phase.record["rows"])) == (None, 1)


def test_a_phase_without_time_says_so_and_the_rest_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(conductor, "LEAST", 1e6)
    (phase,) = played(tmp_path, ("measure",)).run()
    assert "give more --minutes" in phase.reason
    assert phase.record is None
    assert table.failed(joined.join([phase]), [phase]) == "nothing was measured"


@pytest.mark.slow
@pytest.mark.parametrize("phase", SUITES)
@pytest.mark.parametrize("tiny", [True, False])
def test_the_suites_can_be_read_for_any_device(phase, tiny):
    for device in ("cpu", "cuda:1"):
        suite = read_suite(suite_of(phase, device=device, tiny=tiny), kinds=ROW_KINDS)
        assert {row.asked.device for row in suite.rows} == {device}
        assert suite.summary.endswith(".")


@pytest.mark.slow
def test_every_sampler_part_and_extractor_is_checked():
    from zoo.bench.suite import known_extractors
    from zoo.schema.registry import registry

    rows = [row.asked for row in read_suite(suite_of("correct", device="cuda", tiny=False)).rows]
    named = {row.sampler if isinstance(row.sampler, str | None) else row.sampler["name"] for row in rows}
    assert named >= set(registry().names("sampler"))
    assert {row.model for row in rows if row.check == "features"} == set(known_extractors())
    assert {row.check for row in rows} == {"images", "img2img", "inpaint", "memory", "features", "training"}
    references = [row for row in read_suite(suite_of("correct", device="cuda", tiny=False)).rows if row.config]
    for row in references:  # the CPU draws each of them
        stages = zoo.build(row.config).stages
        assert sum(s.sampler.plan(s.denoiser.schedule, interval=s.interval).evaluations for s in stages) <= 40
    alone = [{part for part, on in row.fast.items() if on} for row in rows if row.fast]
    assert [{"precompute"}, {"channels_last"}, {"graphs"}] == alone[:3]
    assert {"precompute", "channels_last", "graphs", "compile"} in alone


def phase_of(name, rows, **more):
    suite = read_suite(suite_of("correct", device="cpu", tiny=True))
    made = record.begin(suite)
    made["rows"] = [record.row_of(suite.rows[i], status, reason) for i, (status, reason) in enumerate(rows)]
    return Phase(name, seconds=1.0, record=made | more)


@pytest.mark.slow
def test_records_are_joined_with_their_phases_and_gathered_in_few_files(tmp_path):
    one = phase_of("correct", [("measured", None), ("not reached", "late")], peaks={"cpu/float32": {"tflops": 1.0}})
    two = phase_of("speed", [("failed", "broke")], noise={"a": {"row": "a", "seconds": [1.0], "relative_spread": None}})
    whole = joined.join([one, two, Phase("train", reason="no time")])
    assert [(r["phase"], r["kind"], r["status"]) for r in whole["rows"]] == [
        ("correct", "checks", "measured"), ("correct", "checks", "not reached"), ("speed", "checks", "failed"),
    ]  # fmt: skip
    assert (whole["peaks"], whole["run"]["complete"]) == ({"cpu/float32": {"tflops": 1.0}}, False)
    weights = tmp_path / "work" / "train" / "weights"
    weights.mkdir(parents=True)
    for i in range(9):
        (weights / f"w{i}.safetensors").write_bytes(b"0")
        (weights / f"w{i}.yaml").write_text("name: w")
    said = joined.gather(tmp_path, whole, "table")
    assert len([p for p in tmp_path.iterdir() if p.is_file()]) == joined.FILES
    assert len(said) == 3
    assert all("one file too many" in sentence for sentence in said)
    assert joined.earlier(tmp_path).name.startswith("on-gpu-")


def test_the_report_reads_the_joined_record(tmp_path):
    from zoo.bench.report import read_records

    whole = joined.join([phase_of("correct", [("measured", None), ("unavailable", "no device")])])
    whole["rows"][0]["check"] = {"what": "grey levels", "largest": 1.5, "against": "cpu float32", "agrees": True}
    path = record.write(whole, tmp_path)
    (found,) = read_records([path])
    assert [row.protocol for row in found.rows] == ["checks, pipeline"] * 2
    ((column, cell),) = [(c, v) for c, v in found.rows[0].cells.items() if c.key == "grey levels"]
    assert (cell.value, column.better, column.terms[1:]) == (1.5, "lower", ("against cpu float32",))


def test_a_disagreement_is_told_and_fails(tmp_path):
    phase = phase_of("correct", [("measured", None)])
    phase.record["rows"][0]["check"] = {"what": "grey levels", "largest": 9.0, "tolerance": 2.0, "agrees": False}
    whole = joined.join([phase])
    assert "disagrees:" in table.table(whole, [phase])
    assert "1 checks disagree" in table.failed(whole, [phase])


def call_of(started, statuses, card="A", **check):
    """A call's record whose rows are the first ones of the suite of checks."""
    phase = phase_of("correct", [(status, None if status == "measured" else "why") for status in statuses])
    whole = joined.join([phase])
    whole["run"] |= {"started": f"2026-01-0{started}T00:00:00+00:00", "wall_seconds": 10.0 * started}
    whole["machine"]["accelerators"] = [{"name": card, "driver": "1"}]
    for row in whole["rows"]:
        row["check"] = {"what": "grey levels", "largest": 0.1 * started, "mean": 0.0, "tolerance": 2.0, **check}
    return whole


@pytest.mark.slow
def test_calls_are_joined_by_what_each_measured(tmp_path):
    first = call_of(1, ("measured", "failed", "not reached", "not reached"))
    second = call_of(2, ("measured", "measured", "failed", "not reached"))
    ids = [row["id"] for row in first["rows"]]
    for number, made in enumerate((first, second)):
        made["pairs"] = [{"ours": ids[0], "theirs": ids[1], "ratio": 1.0 + number, "ratios": []}]
    whole = calls.together([second, first])
    kept = {row["id"]: (row["status"], row["call"]) for row in whole["rows"]}
    assert [kept[i] for i in ids] == [("measured", 1), ("measured", 2), ("failed", 2), ("not reached", 1)]
    assert [pair["ratio"] for pair in whole["pairs"]] == [1.0]  # of the call whose row is kept
    assert [(call["rows"], call["wall_seconds"]) for call in whole["calls"]] == [(2, 10.0), (2, 20.0)]
    assert (whole["run"]["complete"], whole["run"]["wall_seconds"]) == (False, 30.0)
    path = tmp_path / "on-gpu-joined.json"
    path.write_text(calls.text(whole))
    assert record.read(path) == json.loads(json.dumps(whole))
    assert joined.earlier(tmp_path) == path
    assert all(row["config"] is None and row["config_sha256"] for row in whole["rows"])
    with refused("benchmark-record-invalid", UsageError):
        calls.together([first, call_of(2, ("measured",), card="B")])


@pytest.mark.slow
def test_a_training_that_no_call_reached_leaves_where_a_later_call_requests_it_in_another_way():
    first, second = call_of(1, ("not reached", "measured")), call_of(2, ("not reached",))
    for row in (*first["rows"], *second["rows"]):
        row |= {"kind": "training", "group": "emoji-base-32/cuda"}
    second["rows"][0]["id"] = "other"  # as another fast path makes it
    whole = calls.together([first, second])
    assert [(row["status"], row["call"]) for row in whole["rows"]] == [("measured", 1), ("not reached", 2)]
    first["rows"][0]["group"] = "emoji-latent-64/cuda"
    assert len(calls.together([first, second])["rows"]) == 3


def test_the_page_has_a_line_for_each_training_with_its_score_before_and_after():
    def row(name, hit, run):
        values = {"hit[j,val]@200": {"value": hit, "interval": [hit - 0.1, hit + 0.1]}}
        return {
            "id": name, "kind": "training", "status": "measured", "run": run, "quality": {"values": values},
            "asked": {"model": "m", "fast": {"graphs": True}}, "work": {"share_of_peak": 0.07},
            "speed": {"latency_seconds": {"p50": 0.0263}, "images_per_second": 19000.0},
        }  # fmt: skip

    losses = {"first": 0.02, "last": 0.01, "validation": {"loss": 0.03}}
    run = {"steps": 7000, "batch": 512, "seconds_training": 200.0, "losses": losses}
    page = table.trained([row("a-start-zoo", 0.3, None), row("a", 0.4, run)])
    assert page.splitlines()[2:] == [
        "| `m`, graphs | 7,000 of 512 | 200 s | 26.3 ms | 19,000 | 7.0 % | 0.0200 to 0.0100 | 0.0300 | "
        "0.300 (0.2 to 0.4) | 0.400 (0.3 to 0.5) |"
    ]
    assert table.trained([]) == ""


@pytest.mark.slow
def test_the_page_says_how_far_the_device_is_and_which_lines_are_missed():
    page = table.page(calls.together([call_of(1, ("measured", "not reached")), call_of(2, ("measured", "measured"))]))
    assert "2 calls of 10 and 20 s" in page
    assert "at most 0.2000 of 255 apart" in page
    assert "not reached" not in page
