"""A server's configuration of an earlier version is brought into line with this one."""

from msgspec.structs import replace

from bus.identity.authority import Authority
from bus.identity.roles import ROLES
from bus.identity.server.config import identity_config, is_current


def test_changed_permissions_are_noticed_and_a_later_time_is_not(tmp_path, monkeypatch):
    authority = Authority.create(tmp_path / "identity")
    made = identity_config(authority, tmp_path / "resolver", anonymous_looks=True)
    assert is_current(authority, made)
    authority.fleet = replace(authority.fleet, changed_at=authority.fleet.changed_at + 100)
    assert is_current(authority, made)
    wider = replace(ROLES["gateway"], publish=(*ROLES["gateway"].publish, "gpuping.new"))
    monkeypatch.setitem(ROLES, "gateway", wider)
    assert not is_current(authority, made)
    assert not is_current(authority, "")
