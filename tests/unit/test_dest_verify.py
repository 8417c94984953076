"""``aitrail splunk|elastic|sentinel install|verify``: set-up is idempotent, counting finds what is missing or twice."""

import itertools
import json
import time
import uuid

import pytest
from cli_support import event, make_store, run

from aitrail.clock import SystemClock
from aitrail.destinations import sentinel_verify
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.destinations._verified import LONGEST_SLICE_MS, TooDense, Verified, compare, counted_slices
from aitrail.destinations.elastic import ElasticDestination
from aitrail.destinations.sentinel import SentinelDestination
from aitrail.destinations.sentinel_verify import ROLE, Workspace, count_query
from aitrail.destinations.splunk import SplunkDestination
from aitrail.destinations.splunk_manage import SplunkManager
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import encode
from aitrail.ports import EncodedEvent
from aitrail.secrets import Secrets
from aitrail.spool import Intake, Spool
from aitrail.testing.dce_peer import DCR, dce_peer
from aitrail.testing.elastic_peer import elastic_peer
from aitrail.testing.hec_peer import HecPeer
from aitrail.testing.peer import Behaviour
from aitrail.testing.splunkd_peer import SplunkdPeer
from aitrail.testing.workspace_peer import WorkspacePeer

EVENTS = [event(number) for number in range(30)]
ENCODED = [EncodedEvent(one.event_id, one.timestamp, encode(one)) for one in EVENTS]
RANGE = ("--since", "2026-11-23", "--until", "2026-11-24")
DAY = (1_795_392_000_000, 1_795_478_400_000)


# --- comparing


def test_slices_cover_the_range_once_and_follow_the_density():
    asked = []

    def counts(start, end):
        asked.append((start, end))
        return None if start < 7_200_000 and end - start > 900_000 else {}

    slices = [(start, end) for start, end, _ in counted_slices(counts, 0, 400_000_000)]
    assert slices[0][0] == 0
    assert slices[-1][1] == 400_000_000
    assert all(one[1] == two[0] for one, two in itertools.pairwise(slices))
    assert max(end - start for start, end in slices) == LONGEST_SLICE_MS
    assert len(asked) < 60


def test_a_millisecond_that_is_too_dense_ends_it():
    with pytest.raises(TooDense):
        list(counted_slices(lambda start, end: None, 0, 1_000))


def test_missing_repeated_and_extra_events_are_told_apart():
    there = {"a": 1, "b": 3, "x": 1}
    found = compare(lambda start, end: ["a", "b", "c"] if start == 0 else [], lambda start, end: there, 0, 10)
    assert found == Verified(3, 2, 1, 1, 1, ["c"], {"b": 3}, ["x"])
    assert not found.complete
    many = compare(lambda start, end: map(str, range(5_000)), lambda start, end: {}, 0, 10)
    assert (many.missing, len(many.missing_ids)) == (5_000, 1_000)


# --- Splunk


@pytest.fixture
def hec(tmp_path):
    peer = HecPeer(token=str(uuid.uuid4()))
    yield peer
    peer.close()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def splunkd(request, hec, tmp_path):
    peer = SplunkdPeer(hec.indexed, tls=request.param)
    (tmp_path / "management").write_text(peer.token)
    yield peer
    peer.close()


def splunk_settings(hec, splunkd, tmp_path, **changes):
    return SplunkSettings(
        **{
            "urls": (hec.address["url"],),
            "token": f"file:{hec.address['token_file']}",
            "management_url": splunkd.url,
            "management_token": f"file:{tmp_path / 'management'}",
            "ca_file": splunkd.ca_file,
            **changes,
        }
    )


@pytest.fixture
def manager(hec, splunkd, tmp_path):
    one = SplunkManager(splunk_settings(hec, splunkd, tmp_path), Secrets(), "splunk")
    yield one
    one.close()


def states(steps):
    return [step.state for step in steps]


def test_install_makes_what_is_missing_and_then_nothing(splunkd, manager, hec):
    splunkd.add_app("aitrail", {"AI - off": {"is_scheduled": "1", "disabled": "1"}, "AI - macro": {"disabled": "1"}})
    splunkd.add_app("other", {"foreign": {"is_scheduled": "1", "disabled": "1"}})
    would = manager.install(change=False)
    assert states(would)[:3] == ["would be created", "would be changed: disabled", "would be created"]
    assert splunkd.changes == []
    done = manager.install()
    assert states(done)[:3] == ["created", "changed: disabled", "created"]
    assert "1 of them disabled; --enable-searches" in done[3].state
    assert splunkd.collections["data/indexes"]["ai_audit"]["datatype"] == "event"
    assert splunkd.collections["data/inputs/http"]["http"]["disabled"] == "0"
    token = splunkd.collections["data/inputs/http"]["http://aitrail"]
    assert token["token"] == Secrets().resolve(f"file:{hec.address['token_file']}")
    assert (token["index"], token["indexes"], token["sourcetype"], token["useACK"]) == (
        "ai_audit",
        "ai_audit",
        "ai:access:audit",
        "0",
    )
    assert states(manager.install(enable_searches=True))[:3] == ["there"] * 3
    assert splunkd.collections["saved/searches"]["AI - off"]["disabled"] == "0"
    assert splunkd.collections["saved/searches"]["AI - macro"]["disabled"] == "1"
    assert splunkd.collections["saved/searches"]["foreign"]["disabled"] == "1"
    before = list(splunkd.changes)
    assert states(manager.install(enable_searches=True)) == ["there"] * 4
    assert splunkd.changes == before


def test_install_repairs_what_differs(splunkd, manager):
    manager.install()
    splunkd.collections["data/indexes"]["ai_audit"]["disabled"] = "1"
    splunkd.collections["data/inputs/http"]["http://aitrail"] |= {"indexes": "main,ai_audit", "useACK": "1"}
    assert states(manager.install())[:3] == ["changed: disabled", "there", "changed: indexes, useACK"]
    assert states(manager.install())[:3] == ["there"] * 3


def test_install_refuses_to_touch_what_is_another_thing(splunkd, manager, hec, tmp_path):
    splunkd.collections["data/indexes"]["ai_audit"] = {"datatype": "metric", "disabled": "0"}
    with pytest.raises(ConfigError, match="metrics"):
        manager.install()
    splunkd.collections["data/indexes"]["ai_audit"]["datatype"] = "event"
    splunkd.collections["data/inputs/http"]["http://aitrail"] = {"token": str(uuid.uuid4()), "disabled": "0"}
    with pytest.raises(ConfigError, match="another value"):
        manager.install()
    (tmp_path / "short").write_text("not-a-guid")
    wrong = SplunkManager(
        splunk_settings(hec, splunkd, tmp_path, token=f"file:{tmp_path / 'short'}"), Secrets(), "splunk"
    )
    with pytest.raises(ConfigError, match="no GUID") as raised:
        wrong.install()
    assert "not-a-guid" not in str(raised.value)
    wrong.close()
    splunkd.instance = "cloud"
    with pytest.raises(ConfigError, match="Splunk Cloud"):
        manager.install()


@pytest.mark.parametrize("capability", ["indexes_edit", "edit_token_http", "schedule_search"])
def test_a_missing_capability_is_named(splunkd, manager, capability):
    splunkd.add_app("aitrail", {"AI - off": {"is_scheduled": "1", "disabled": "1"}})
    splunkd.capabilities.remove(capability)
    with pytest.raises(AuthError, match=capability) as raised:
        manager.install(enable_searches=True)
    assert "Settings > Roles" in raised.value.hint


def test_searching_names_what_is_missing(splunkd, manager):
    with pytest.raises(AuthError, match="no index ai_audit"):
        manager.check_search()
    manager.install()
    manager.check_search()
    splunkd.capabilities.remove("search")
    with pytest.raises(AuthError, match="capability search"):
        manager.check_search()
    with pytest.raises(AuthError):
        manager.counts(*DAY)
    splunkd.capabilities.append("search")
    splunkd.token = "another"
    with pytest.raises(AuthError, match="management_token is refused"):
        manager.counts(*DAY)


def test_a_search_that_fails_counts_nothing(splunkd, manager):
    splunkd.message = ("FATAL", "the search was cancelled")
    with pytest.raises(TransientError):
        manager.counts(*DAY)


def test_names_that_could_be_a_search_are_refused(hec, splunkd, tmp_path):
    one = SplunkManager(splunk_settings(hec, splunkd, tmp_path, index='x" | delete "'), Secrets(), "splunk")
    with pytest.raises(ConfigError, match="letters, digits"):
        one.counts(*DAY)
    with pytest.raises(ConfigError, match="letters, digits"):
        one.install()
    one.close()
    assert splunkd.searches == []
    with pytest.raises(ConfigError, match="management_url"):
        SplunkManager(splunk_settings(hec, splunkd, tmp_path, management_url=""), Secrets(), "splunk")


def write_config(tmp_path, text):
    path = tmp_path / "aitrail.toml"
    path.write_text(f'[store]\ndir = "{tmp_path / "store"}"\n{text}')
    return path


def test_splunk_verify_from_end_to_end(hec, splunkd, manager, tmp_path):
    make_store(tmp_path / "store", EVENTS)
    config = write_config(
        tmp_path,
        f"""[destinations.soc]
type = "splunk"
urls = ["{hec.address["url"]}"]
token = "file:{hec.address["token_file"]}"
management_url = "{splunkd.url}"
management_token = "file:{tmp_path / "management"}"
ca_file = "{splunkd.ca_file}"
""",
    )
    shown = run("splunk", "install", "--dry-run", "-c", config)
    assert "index ai_audit: would be created" in shown.output
    assert "HEC token aitrail: created" in run("splunk", "install", "-c", config).output
    destination = SplunkDestination(
        SplunkSettings(urls=(hec.address["url"],), token=f"file:{hec.address['token_file']}"), Secrets()
    )
    destination.send(ENCODED[:-1], time.monotonic() + 30)
    found = run("splunk", "verify", "-c", config, *RANGE)
    assert found.return_value == 1
    assert "30 events in the store, 29 of them there" in found.output
    assert f"1 missing: {ENCODED[-1].event_id}" in found.output
    destination.send(ENCODED[-1:], time.monotonic() + 30)
    found = run("splunk", "verify", "-c", config, *RANGE)
    assert (found.return_value, "missing" in found.output) == (0, False)
    destination.send(ENCODED[:2], time.monotonic() + 30)
    destination.close()
    hec.forget(ENCODED[5].event_id)
    told = json.loads(run("splunk", "verify", "soc", "-c", config, *RANGE, "--format", "json").output)
    assert told["verified"]["missing_ids"] == [ENCODED[5].event_id]
    assert told["verified"]["repeated_ids"] == {ENCODED[0].event_id: 2, ENCODED[1].event_id: 2}
    narrow = run(
        "splunk", "verify", "-c", config, "--since", "2026-11-23T09:00Z", "--until", "2026-11-23T09:00:05.119Z"
    )
    assert "0 events in the store" in narrow.output
    assert {query for query, _, _ in splunkd.searches} == {
        '| tstats count where index="ai_audit" sourcetype="ai:access:audit" by event_id'
    }
    wrong = run("splunk", "verify", "elsewhere", "-c", config)
    assert "known: soc" in wrong.exception.hint


def test_what_waits_was_filtered_or_refused_is_not_lost(hec, tmp_path):
    splunkd = SplunkdPeer(hec.indexed)
    (tmp_path / "management").write_text(splunkd.token)
    splunkd.collections["data/indexes"]["ai_audit"] = {"datatype": "event", "disabled": "0"}
    store = make_store(tmp_path / "store", EVENTS)
    config = write_config(
        tmp_path,
        f"""[destinations.soc]
type = "splunk"
urls = ["{hec.address["url"]}"]
token = "file:{hec.address["token_file"]}"
management_url = "{splunkd.url}"
management_token = "file:{tmp_path / "management"}"
where = "user_id = 'nobody' or token_count > 100"
""",
    )
    nothing = run("splunk", "verify", "-c", config, *RANGE)
    assert "0 events in the store" in nothing.output
    assert nothing.return_value == 0
    config.write_text(config.read_text().replace("token_count > 100", "token_count >= 100"))
    waiting = [event(100), event(101)]
    with Spool.open(store, SystemClock()) as spool:
        encoded = [EncodedEvent(one.event_id, one.timestamp, encode(one)) for one in waiting]
        spool.commit(Intake(source="files", destinations=("soc",), events=encoded, cursors={}))
    found = run("splunk", "verify", "-c", config, *RANGE)
    assert "30 events in the store, 0 of them there" in found.output
    assert "2 still wait" in found.output
    assert found.return_value == 4
    splunkd.close()


# --- Elastic


def test_elastic_install_and_verify_from_end_to_end(tmp_path):
    peer = elastic_peer(tls=True)
    address = peer.address
    make_store(tmp_path / "store", EVENTS)
    config = write_config(
        tmp_path,
        f"""[destinations.elastic]
type = "elastic"
urls = ["{address["url"]}"]
api_key = "file:{address["token_file"]}"
ca_file = "{address["ca_file"]}"
retention = "365d"
""",
    )
    planned = json.loads(run("elastic", "install", "--dry-run", "-c", config).output)
    assert peer.dialect.templates == {}
    put = run("elastic", "install", "-c", config).output
    assert put.splitlines() == [f"put {path}" for path in planned]
    assert peer.dialect.templates == planned
    settings = ElasticSettings(
        urls=(address["url"],), api_key=f"file:{address['token_file']}", ca_file=address["ca_file"]
    )
    destination = ElasticDestination(settings, Secrets())
    destination.send(ENCODED[1:], time.monotonic() + 30)
    destination.close()
    peer.dialect.rolled_over.append(peer.bodies(ENCODED[3].event_id)[0])
    told = json.loads(run("elastic", "verify", "-c", config, *RANGE, "--format", "json").output)
    assert told["verified"]["missing_ids"] == [ENCODED[0].event_id]
    assert told["verified"]["repeated_ids"] == {ENCODED[3].event_id: 2}
    assert told["verified"]["extra"] == 0
    peer.dialect.privileges["read"] = False
    refused = run("elastic", "verify", "-c", config, *RANGE)
    assert isinstance(refused.exception, AuthError)
    assert "privilege read" in str(refused.exception)
    peer.script(Behaviour("down"))
    assert isinstance(run("elastic", "verify", "-c", config, *RANGE).exception, TransientError)
    peer.close()


# --- Sentinel


class Credential:
    """Gives one token, as azure-identity does."""

    def __init__(self, token):
        self.token = token
        self.scopes = []

    def get_token(self, *scopes, **options):
        from azure.core.credentials import AccessToken

        self.scopes.append(scopes)
        return AccessToken(self.token(), int(time.time()) + 3_600)


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    dce = dce_peer()
    dce.dialect.streams |= {"Custom-AIAuditFindings_CL"}
    workspace = WorkspacePeer(
        lambda: {name.partition("-")[2]: rows for name, rows in dce.dialect.tables.items()} | {"ASimAgentEventLogs": []}
    )
    monkeypatch.setattr(sentinel_verify, "default_credential", lambda where: Credential(lambda: workspace.token))
    yield dce, workspace
    dce.close()
    workspace.close()


def workspace_of(peer, **changes):
    settings = SentinelSettings(
        **{
            "url": "https://example.com",
            "dcr": DCR,
            "workspace_id": peer.workspace,
            "query_url": peer.url,
            "ca_file": peer.ca_file,
            **changes,
        }
    )
    return Workspace(settings, Credential(lambda: peer.token), table="AIAudit_CL")


def test_sentinel_verify_from_end_to_end(sentinel, tmp_path):
    dce, workspace = sentinel
    make_store(tmp_path / "store", EVENTS)
    config = write_config(
        tmp_path,
        f"""[destinations.sentinel]
type = "sentinel"
url = "{dce.address["url"]}"
dcr = "{DCR}"
workspace_id = "{workspace.workspace}"
query_url = "{workspace.url}"
ca_file = "{workspace.ca_file}"
""",
    )
    credential = Credential(lambda: dce._token)
    destination = SentinelDestination(SentinelSettings(url=dce.address["url"], dcr=DCR), credential)
    destination.send(ENCODED[1:], time.monotonic() + 30)
    destination.send(ENCODED[1:2], time.monotonic() + 30)
    destination.close()
    told = json.loads(run("sentinel", "verify", "-c", config, *RANGE, "--format", "json").output)
    assert told["verified"]["missing_ids"] == [ENCODED[0].event_id]
    assert told["verified"]["repeated_ids"] == {ENCODED[1].event_id: 2}
    assert told["verified"]["found"] == 29
    workspace.role = False
    refused = run("sentinel", "verify", "-c", config, *RANGE)
    assert isinstance(refused.exception, AuthError)
    assert ROLE in str(refused.exception)


def test_the_workspace_says_what_is_missing(sentinel):
    dce, peer = sentinel
    with pytest.raises(ConfigError, match="no table AIAudit_CL"):
        workspace_of(peer).counts(*DAY)
    dce.dialect.tables["Custom-AIAudit_CL"] = [
        json.dumps({"EventUid": f"{number:032x}", "EventTime": "2026-11-23T10:00:00.000Z"}).encode()
        for number in range(20)
    ]
    assert len(workspace_of(peer).counts(*DAY)) == 20
    peer.most = 10
    assert workspace_of(peer).counts(*DAY) is None
    with pytest.raises(ConfigError, match="not the id of a workspace"):
        workspace_of(peer, workspace_id="my-workspace")
    with pytest.raises(ConfigError, match="no workspace"):
        workspace_of(peer, workspace_id=str(uuid.uuid4())).counts(*DAY)
    peer.token = "another"
    one = workspace_of(peer)
    one._client._config.authentication_policy._credential = Credential(lambda: "old")
    with pytest.raises(AuthError, match=ROLE):
        one.counts(*DAY)
    with pytest.raises(TransientError, match="cannot be queried now"):
        workspace_of(peer, ca_file="").counts(*DAY)


def test_the_query_is_bounded_by_the_events_own_time():
    query = count_query("AIAudit_CL", "EventTime", *DAY)
    assert "EventTime >= datetime(2026-11-23T00:00:00.000Z) and EventTime < datetime(2026-11-24T00:00:00.000Z)" in query
