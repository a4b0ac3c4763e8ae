"""The rules of the lock `k8s-lease` without a server: names, times, client-go's record, who may take over."""

from __future__ import annotations

import calendar
import json
import re
import string
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleton_run.api import control as controls
from singleton_run.api import timestamps
from singleton_run.api.record import started
from singleton_run.errors import Refused
from singleton_run.names import check_name
from singleton_run_k8s import errors, lease, objects
from singleton_run_k8s.address import ACCOUNT, Address

if TYPE_CHECKING:
    from collections.abc import Callable

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LETTERS = string.ascii_letters + string.digits + "._-:@+"
names = st.text(LETTERS, min_size=1, max_size=200).filter(lambda name: name[0] not in ".-")
like_ours = st.builds("singleton-run-{}".format, st.text("abz-.27", max_size=40))
keys = st.text(min_size=1, max_size=256)
moments = st.integers(0, 4_000_000_000_000_000).map(lambda micros: micros / 1e6)
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


# Names.


@given(st.one_of(names, like_ours), st.one_of(names, like_ours))
def test_two_names_never_have_one_lease_and_every_lease_has_a_legal_name(one: str, other: str) -> None:
    check_name(one)
    mapped = objects.of_lock(one)
    assert SUBDOMAIN.fullmatch(mapped)
    assert len(mapped) <= 253
    assert (mapped == objects.of_lock(other)) == (one == other)
    # What stays as it is and what is mapped have no name in common.
    assert objects.of_lock(mapped) != mapped or mapped == one


@pytest.mark.parametrize("name", ["worker", "a", "backup.db-1", "1", "a.b.c", "x" * 200])
def test_a_name_that_can_be_a_leases_name_is_it(name: str) -> None:
    assert objects.of_lock(name) == name


def test_the_rule_is_what_the_docs_say_and_stays() -> None:
    """Whoever runs another version of us beside this one must lock the same Lease."""
    assert objects.of_lock("Deploy_Prod") == "singleton-run-deploy-prod-cyn6q36ki35oto6n2fwy7uq6yfegldd2"
    assert objects.of_key("worker", "v1") == "singleton-run-once-worker-7t77c52pa3pybxo6gk24wec3q2xdpgog"


@given(names, keys, names, keys)
def test_keys_have_objects_of_their_own(name: str, key: str, other: str, another: str) -> None:
    mapped = objects.of_key(name, key)
    assert SUBDOMAIN.fullmatch(mapped)
    assert (mapped == objects.of_key(other, another)) == ((name, key) == (other, another))
    assert mapped != objects.of_lock(other)
    assert objects.of_lock(mapped) != mapped


# Times.


@given(moments)
def test_a_time_is_read_as_it_was_written(moment: float) -> None:
    text = timestamps.micro_time(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    found = timestamps.unix_time(text)
    assert found is not None
    assert abs(found - moment) < 2e-6
    assert int(found) == calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


@pytest.mark.parametrize("text", ["", "now", "2026-11-22", "2026-11-22T05:46:15+01:00", "2026-11-22Tx:4Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert timestamps.unix_time(text) is None


# The record of client-go, and who may take over.


def stored(body: dict[str, Any], version: int, stamp: float | None = None) -> lease.Lease:
    """The Lease as a server gives it after it was written; `stamp` is when, by its clock."""
    metadata = {**body["metadata"], "resourceVersion": str(version), "uid": "u", "namespace": "jobs"}
    if stamp is not None:
        fields: dict[str, Any] = {"f:spec": {"f:renewTime": {}, "f:holderIdentity": {}}}
        second = timestamps.micro_time(int(stamp)).partition(".")[0] + "Z"
        other = {"manager": "kubectl", "time": "2099-01-01T00:00:00Z", "fieldsV1": {"f:metadata": {}}}
        metadata["managedFields"] = [other, {"manager": "x", "time": second, "fieldsV1": fields}]
    return {**body, "metadata": metadata}


def made(holder: str = "a:1:x", ttl: float = 30.0, now: float = 1000.0) -> lease.Lease:
    return stored(lease.taken(None, "Job", holder, ttl, now, "job"), 7)


def test_a_new_lease_has_what_client_go_writes() -> None:
    assert made(ttl=29.2)["spec"] == {
        "holderIdentity": "a:1:x",
        "leaseDurationSeconds": 30,
        "acquireTime": "1970-01-01T00:16:40.000000Z",
        "renewTime": "1970-01-01T00:16:40.000000Z",
        "leaseTransitions": 0,
    }


@given(st.lists(st.sampled_from(["renew", "release", "keep", "take", "same", "write"]), max_size=12))
def test_the_record_goes_by_client_gos_rules(steps: list[str]) -> None:
    """A renewal moves renewTime alone; another holder counts one transition and has a new acquireTime."""
    now, transitions = 1000.0, 0
    found = made(now=now)
    for number, step in enumerate(steps):
        now += 1.0
        before = found["spec"]
        holder = lease.holder_of(found)
        same = step == "same" and lease.is_held_by(found, holder)
        if step in ("take", "same"):
            found = lease.taken(found, "Job", holder if same else f"b:{number}:y", 30.0, now, "job")
            transitions += not same
            assert (found["spec"]["acquireTime"] == before["acquireTime"]) == same
        elif step == "renew":
            found = lease.renewed(found, 7, 30.0, 0, now)
            assert found["spec"] == {
                **before,
                "renewTime": timestamps.micro_time(now),
                "leaseDurationSeconds": 30,
            }
        elif step == "write":
            found = lease.recorded(found, {"state": "running"})
            assert found["spec"] == before
        else:
            found = lease.released(found, 7, {}, 0, 2.5 if step == "keep" else 0.0, now)
            assert lease.holder_of(found) == (holder if step == "keep" else "")
            assert found["spec"]["leaseDurationSeconds"] == (3 if step == "keep" else 1)
            assert not lease.is_held_by(found, holder)
        assert found["spec"]["leaseTransitions"] == transitions


def test_a_grant_is_told_from_every_other() -> None:
    found = made()
    acquired = found["spec"]["acquireTime"]
    assert lease.is_of(found, "a:1:x", acquired, 0)
    later = lease.renewed(found, 7, 30.0, 2, 1010.0)
    assert lease.is_of(later, "a:1:x", acquired, 2)
    assert not lease.is_of(later, "a:1:x", acquired, 1)
    assert not lease.is_of(found, "b:1:x", acquired, 0)
    again = lease.taken(lease.released(found, 7, {}, 0, 0.0, 1020.0), "Job", "a:1:x", 30.0, 1021.0, "job")
    assert not lease.is_of(again, "a:1:x", acquired, 0)
    kept = lease.released(found, 7, {}, 0, 60.0, 1020.0)
    assert not lease.is_of(kept, "a:1:x", acquired, 0)
    for given_back in (kept, again):
        assert lease.was_released_by(given_back, 7, 0)
        assert not lease.was_released_by(given_back, 8, 0)
    assert not lease.was_released_by(kept, 7, 1)


def test_a_control_goes_on_whatever_else_is_written() -> None:
    control = controls.paused(None, by="ann@desk", at=1.0, until=None, reason="é")
    found = lease.steered(None, "Job", "job", control, "1")
    assert lease.holder_of(found) == ""
    version = lease.control_version(found)
    assert version
    changes: list[Callable[[lease.Lease], lease.Lease]] = [
        lambda one: lease.taken(one, "Job", "a:1:x", 30.0, 1000.0, "job"),
        lambda one: lease.renewed(one, 7, 30.0, 0, 1001.0),
        lambda one: lease.recorded(one, {}),
        lambda one: lease.released(one, 7, {}, 0, 60.0, 1002.0),
        lambda one: lease.freed(one, 1003.0),
        lambda one: lease.released(one, 7, {}, 0, 0.0, 1004.0),
    ]
    for change in changes:
        found = stored(change(found), 7)
        assert lease.control_of(found) == control
        assert lease.control_version(found) == version
    again = lease.steered(found, "Job", "job", control, "2")
    by_hand = lease.steered(found, "Job", "job", {}, "1")
    assert len({"", version, *map(lease.control_version, (again, by_hand))}) == 4
    assert lease.control_version(made()) == lease.control_version(None) == ""


def test_the_token_is_known_of_the_holder_whose_it_is() -> None:
    found = made()
    assert lease.known_token(found) is None
    renewed = stored(lease.renewed(found, 7, 30.0, 0, 1001.0), 8)
    assert lease.known_token(renewed) == 7
    assert lease.known_token(stored(lease.released(renewed, 7, None, 0, 60.0, 1002.0), 9)) == 7
    assert lease.known_token(stored(lease.taken(renewed, "Job", "a:1:x", 30.0, 1002.0, "job"), 9)) is None
    others = stored(lease.taken(renewed, "Job", "b:1:x", 30.0, 1003.0, "job"), 9)
    assert lease.known_token(others) is None
    for holder, token in (("b:1:x", 9), ("a:1:x", None)):
        record = started(None, "Job", holder, 9, 1003.0)
        assert lease.known_token(stored(lease.recorded(others, record), 10)) == token


def test_what_others_wrote_stays() -> None:
    note = {"example.com/owner": "team"}
    found = made()
    found["metadata"] |= {"annotations": note, "labels": note, "finalizers": ["f"]}
    found["spec"] = {**found["spec"], "strategy": "OldestEmulationVersion"}
    for body in (
        lease.renewed(found, 7, 30.0, 0, 1.0),
        lease.recorded(found, {}),
        lease.released(found, 7, {}, 0, 0.0, 1.0),
        lease.taken(found, "Job", "b", 30.0, 1.0, "job"),
        lease.freed(found, 1.0),
        lease.steered(found, "Job", "job", {}, "1"),
    ):
        assert note.items() <= body["metadata"]["annotations"].items()
        assert note.items() <= body["metadata"]["labels"].items()
        assert body["metadata"]["finalizers"] == ["f"]
        assert body["spec"]["strategy"] == "OldestEmulationVersion"
        assert "managedFields" not in body["metadata"]


@given(st.floats(0.0, 100.0), st.integers(1, 60))
def test_a_lease_is_over_when_it_was_seen_unchanged_for_its_duration(after: float, seconds: int) -> None:
    first = made(ttl=seconds)
    seen = lease.observe(first, None, 500.0, 9.0, None)
    # Somebody's annotation is no renewal.
    annotated = stored({**first, "metadata": {**first["metadata"], "annotations": {"note": "x"}}}, 8)
    seen = lease.observe(annotated, seen, 500.0 + after / 2, 9.0, None)
    assert seen.is_free("b", 500.0 + after) == (after >= seconds)
    renewed = stored(lease.renewed(first, 7, seconds, 0, 1001.0), 9)
    seen = lease.observe(renewed, seen, 500.0 + after, 9.0, None)
    assert not seen.is_free("b", 500.0 + after + seconds - 0.001)


@given(st.integers(0, 100), st.integers(1, 60), st.floats(0.0, 10.0))
def test_by_the_servers_stamps_it_is_over_at_first_seen(age: int, seconds: int, later: float) -> None:
    """Both of its clocks are cut off to whole seconds, so it is over for a second and more by then."""
    found = stored(made(ttl=seconds), 7, stamp=1000.0)
    seen = lease.observe(found, None, 500.0, 9.0, 1000.0 + age)
    free = seen.is_free("b", 500.0 + later)
    assert free == (later >= seconds or age + later >= seconds + lease.MARGIN)
    assert not free or age + later >= seconds + 1.0 or later >= seconds


def test_without_stamps_or_without_the_servers_clock_it_is_observed() -> None:
    old = stored(made(), 7, stamp=1000.0)
    bare = made()
    unreadable = stored(made(), 7, stamp=1000.0)
    unreadable["metadata"]["managedFields"][1]["time"] = "yesterday"
    for found, date in ((old, None), (bare, 9000.0), (unreadable, 9000.0)):
        seen = lease.observe(found, None, 500.0, 9.0, date)
        assert not seen.is_free("b", 529.9)
        assert seen.is_free("b", 530.0)


def test_what_is_free_and_what_is_ones_own_needs_no_time() -> None:
    assert lease.observe(None, None, 500.0, 9.0, None).is_free("a:1:x", 500.0)
    assert lease.observe(made(), None, 500.0, 9.0, None).is_free("a:1:x", 500.0)
    given_back = lease.released(made(), 7, {}, 0, 0.0, 1001.0)
    assert lease.observe(given_back, None, 500.0, 9.0, None).is_free("b", 500.0)
    kept = lease.released(made(), 7, {}, 0, 5.0, 1001.0)
    assert not lease.observe(kept, None, 500.0, 9.0, None).is_free("a:1:x", 504.9)
    empty = {"metadata": {"name": "job", "resourceVersion": "3"}}
    assert lease.observe(empty, None, 500.0, 9.0, None).is_free("b", 500.0)
    assert lease.taken(empty, "Job", "b", 30.0, 1.0, "job")["spec"]["leaseTransitions"] == 1


def test_a_holder_that_does_not_say_for_how_long_has_it_for_our_ttl() -> None:
    found = {"metadata": {"name": "job"}, "spec": {"holderIdentity": "somebody"}}
    seen = lease.observe(found, None, 500.0, 9.0, None)
    assert not seen.is_free("b", 508.9)
    assert seen.is_free("b", 509.0)


@given(st.integers(0, 5), st.integers(0, 300), st.integers(0, 3))
def test_a_record_is_cut_from_its_end_to_four_kibibytes(runs: int, length: int, notes: int) -> None:
    record: dict[str, Any] = started(None, "Job", "h", 1, 5.0)
    for number in range(runs):
        record = started(record, "Job", "h" * length, number + 2, 5.0)
    for run in record["runs"]:
        run["notes"] = ["x" * length] * notes
    body = lease.recorded(made(), record)
    found = lease.record_of(body)
    assert found is not None
    assert len(body["metadata"]["annotations"][lease.RECORD]) <= lease.LONGEST_RECORD
    assert found["runs"] == record["runs"][: len(found["runs"])]
    assert {**found, "runs": []} == {**record, "runs": []}


@pytest.mark.parametrize("text", ["none", "[]", "{}", "[" * 50_000])
def test_a_record_that_is_damaged_is_unreadable(text: str) -> None:
    found = made()
    found["metadata"]["annotations"][lease.RECORD] = text
    record = lease.record_of(found)
    assert record is not None
    assert record["state"] == "unreadable"


def test_an_empty_record_is_none() -> None:
    found = made()
    found["metadata"]["annotations"][lease.RECORD] = ""
    assert lease.record_of(found) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = ["metadata", "spec", "annotations", "labels", "managedFields", "name", "uid", "leaseTransitions"]


@given(st.data())
def test_whatever_a_server_gives_for_a_lease_is_dealt_with_or_refused(data: st.DataObject) -> None:
    found: Any = stored(made(), 7, stamp=1000.0)
    for where in (found, found["metadata"], found["spec"]):
        for word in data.draw(st.sets(st.sampled_from([*where, *words]), max_size=2)):
            where[word] = data.draw(json_values)
    if not lease.is_whole(found):
        return
    seen = lease.observe(found, None, 500.0, 9.0, 2000.0)
    seen.is_free("b", 600.0)
    lease.record_of(found)
    lease.name_of(found)
    lease.taken(found, "Job", "b", 30.0, 1.0, "job")
    lease.is_of(found, "a:1:x", "", 0)
    lease.known_token(found)
    lease.control_of(found)
    lease.control_version(found)
    lease.freed(found, 1.0)
    lease.steered(found, "Job", "job", {}, "1")


# Where it is.


def refusal(lock: str, environ: dict[str, str]) -> str:
    with pytest.raises(Refused) as caught:
        Address(lock, environ)
    return str(caught.value)


def test_the_namespace_is_the_urls_then_the_environments() -> None:
    both = {**POD, "POD_NAMESPACE": "pod", "NAMESPACE": "other"}
    assert Address("k8s-lease://jobs", both).namespace == "jobs"
    assert Address("k8s-lease", both).namespace == "pod"
    assert Address("k8s-lease", {**POD, "NAMESPACE": "other"}).namespace == "other"
    assert Address("k8s-lease", POD).namespace == ""


def test_the_login_is_by_kubeconfig_where_one_is_named_else_by_the_pod() -> None:
    assert Address("k8s-lease", POD).account == ACCOUNT
    named = Address("k8s-lease://jobs?context=prod%2Feu", {**POD, "KUBECONFIG": "/a:/b"})
    assert (named.account, named.context, named.kubeconfig) == ("", "prod/eu", "/a:/b")
    assert Address("k8s-lease", {**POD, "KUBECONFIG": "/a"}).account == ""
    assert Address("k8s-lease", {}).account == ""
    assert Address("k8s-lease://?service-account=/x", {**POD, "KUBECONFIG": "/a"}).account == "/x"


def test_the_clock_is_the_servers_unless_told_otherwise() -> None:
    assert Address("k8s-lease", POD).stamps
    assert Address("k8s-lease://?clock=server", POD).stamps
    assert not Address("k8s-lease://jobs?clock=observed", POD).stamps


def test_an_address_that_contradicts_itself_is_refused() -> None:
    assert "context" in refusal("k8s-lease://?context=a&service-account=/x", POD)
    assert "KUBERNETES_SERVICE_HOST" in refusal("k8s-lease://?service-account=/x", {})
    assert "Jobs" in refusal("k8s-lease://Jobs", {})
    assert "not a namespace" in refusal("k8s-lease", {"POD_NAMESPACE": "a/b"})
    assert "kontext" in refusal("k8s-lease://?kontext=a", {})
    assert "observed" in refusal("k8s-lease://?clock=mine", {})


def test_a_role_is_for_whoever_was_refused() -> None:
    user = "system:serviceaccount:jobs:worker"
    assert errors.role("get", "jobs", user).endswith("--serviceaccount=jobs:worker")
    assert errors.role("get", "jobs", "jane").endswith("--user='jane'")
    assert json.dumps(errors.role("get", "jobs", "")).endswith('USER"')
