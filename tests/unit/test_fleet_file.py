"""An authority's files are read by earlier and later versions: a fleet may go back."""

import json
from pathlib import Path

from bus.identity import fleet_file
from bus.identity.authority import Authority
from bus.identity.roles import ROLES

# The roles of the first version with identities, which refuses every other.
FIRST_ROLES = {
    *("agent", "scheduler", "storage", "gateway", "enrolment", "alerts", "bootstrap", "layout"),
    *("operator", "leaf"),
}


def test_an_earlier_version_sees_no_role_that_it_does_not_know(tmp_path: Path):
    """`fleet.json` with the role `bridge` was refused, and compose could not be set back."""
    authority = Authority.create(tmp_path / "a")
    for role in ("storage", "bridge"):
        authority.issue(role, f"_{role}", tmp_path / f"{role}.creds")
    text = json.loads((tmp_path / "a/fleet.json").read_text())
    assert set(text["signing_keys"]) <= FIRST_ROLES
    assert set(text["later_signing_keys"]) == set(ROLES) - FIRST_ROLES
    lines = (tmp_path / "a" / fleet_file.ISSUED).read_text().splitlines()
    assert [json.loads(line)["role"] for line in lines] == ["storage"]
    assert {user.role for user in authority.issued()} == {"storage", "bridge"}
    assert Authority.load(tmp_path / "a").fleet == authority.fleet


def test_what_a_later_version_wrote_is_left_out(tmp_path: Path):
    authority = Authority.create(tmp_path / "a")
    path = tmp_path / "a/fleet.json"
    text = json.loads(path.read_text())
    text["signing_keys"]["auditor"] = text["signing_keys"]["agent"]
    text["retiring"]["AX"] = "auditor"
    text["in_fleet"]["AY"] = "auditor"
    text["role_accounts"]["auditor"] = "AZ"
    path.write_text(json.dumps(text))
    line = '{"role":"auditor","name":"_x","public_key":"U","issued_at":1,"expires_at":2}\n'
    (tmp_path / "a" / fleet_file.ISSUED).write_text(line)
    later = Authority.load(tmp_path / "a")
    assert later.fleet == authority.fleet
    assert later.issued() == []


def test_a_role_that_an_earlier_version_dropped_is_made_again(tmp_path: Path):
    Authority.create(tmp_path / "a")
    path = tmp_path / "a/fleet.json"
    text = json.loads(path.read_text())
    kept = {name: value for name, value in text.items() if not name.startswith("later_")}
    path.write_text(json.dumps(kept))
    again = Authority.load(tmp_path / "a")
    again.add_missing_roles()
    assert set(again.fleet.signing_keys) == set(ROLES)
