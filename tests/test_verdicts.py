"""What was decided is written down once, in order, and can be read by whoever asks why."""

import json

import pytest

from penstock.cli import main
from penstock.errors import StoreError
from penstock.snapshots import SnapshotStore
from penstock.verdicts import VerdictLog


def verdict(event, what="promoted", version=1, run=0, config_hash="a", **more):
    return {
        "run": run,
        "event": event,
        "what": what,
        "how": "refresh",
        "learner": "sgd",
        "version": version,
        "parent": None,
        "fallback": None,
        "sequence": version,
        "text": f"{what} v{version}",
        "evidence": {
            "log_e": 1.5,
            "threshold": 3.0,
            "events": 100,
            "gain": 0.1,
            "guards": {"error": {"lower": 0.1}},
        },
        "config_hash": config_hash,
        **more,
    }


STREAM = [verdict(100), verdict(200, "rejected", 2), verdict(200, "opened", 3), verdict(300, "promoted", 3)]


@pytest.mark.parametrize("died_behind", range(5))
@pytest.mark.parametrize("went_back_to", range(5))
def test_what_is_repeated_is_not_written_twice(tmp_path, died_behind, went_back_to):
    log = VerdictLog(tmp_path / "store")
    for one in STREAM[:died_behind]:
        log.append(one)
    log = VerdictLog(tmp_path / "store")
    for one in STREAM[min(went_back_to, died_behind) :]:
        log.append(one)
    assert log.read() == STREAM


def test_a_new_run_and_a_new_configuration_begin_at_their_first_event(tmp_path):
    log = VerdictLog(tmp_path)
    told = [verdict(900), verdict(100, run=7), verdict(50, run=7, config_hash="b")]
    for one in told:
        log.append(one)
    assert VerdictLog(tmp_path).read() == told


def test_a_torn_line_is_cut_off_and_a_damaged_one_is_an_error(tmp_path):
    log = VerdictLog(tmp_path)
    log.append(STREAM[0])
    file = tmp_path / "verdicts.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"run": 0, "eve')
    assert log.read() == STREAM[:1]
    VerdictLog(tmp_path).append(STREAM[3])
    assert log.read() == [STREAM[0], STREAM[3]]
    file.write_bytes(b'{"run": 0}\n' + file.read_bytes())
    with pytest.raises(StoreError, match=r"verdicts\.jsonl is damaged: line 1 is no verdict"):
        log.read()


@pytest.fixture
def store(tmp_path):
    store = SnapshotStore(tmp_path / "store")
    for version in (1, 2, 3):
        store.put({"kind": "prior"}, {"kind": "prior", "task": "binary", "version": version})
    log = VerdictLog(store.path)
    for event, version in ((100, 1), (300, 3)):
        log.append(verdict(event, version=version))
        store.promote(version, version)
    return store


def test_log_and_show_say_why(store, capsys):
    assert main(["snapshots", "promote", str(store.path), "2"]) == 0
    capsys.readouterr()
    assert main(["snapshots", "log", str(store.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "         100  promoted     promoted v1",
        "         300  promoted     promoted v3",
        "     by hand  set          serving: from v3 to v2",
    ]
    assert main(["snapshots", "log", str(store.path), "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdicts"], found["by_hand"]) == ([verdict(300, version=3)], [])
    assert main(["snapshots", "show", str(store.path), "3"]) == 0
    shown = capsys.readouterr().out
    assert "event 300: promoted: promoted v3" in shown
    assert "      lower: 0.1" in shown
    assert "config_hash: a" in shown
    assert main(["snapshots", "show", str(store.path), "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == [verdict(300, version=3)]


def test_log_of_no_store(tmp_path, capsys):
    assert main(["snapshots", "log", str(tmp_path / "no")]) != 0
    assert "no snapshots at" in capsys.readouterr().err
