"""What expires is told of in time: credentials by a metric, the certificate by doctor."""

import time
from pathlib import Path

import pytest

from bus import settings
from bus.identity import credentials
from bus.identity.authority import Authority
from bus.identity.keys import KeyKind, SigningKey
from bus.identity.tls import certificates
from bus.identity.tls.files import TlsFiles
from bus.monitoring.credentials_families import credentials_families
from gpuping.doctor import certificate_check

DAY = 86_400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


def creds_for(authority: Authority, folder: Path, days: float) -> Path:
    key = SigningKey.generate(KeyKind.USER)
    now = int(time.time())
    expires_at = int(now + days * DAY)
    token = authority.mint("scheduler", "_scheduler", key.public, now=now, expires_at=expires_at)
    path = folder / "scheduler.creds"
    credentials.write_secret(path, credentials.to_text(token, key))
    return path


@pytest.mark.parametrize("days", [3650, 29, -1])
def test_the_metric_says_when_credentials_expire(
    authority: Authority, tmp_path: Path, days: float
) -> None:
    path = creds_for(authority, tmp_path, days)
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path / "data"), NATS_CREDS=str(path))
    (family,) = credentials_families(chosen, "scheduler")
    (sample,) = family.samples
    assert sample.name == "gpuping_credentials_expire_timestamp_seconds"
    assert abs(sample.value - time.time() - days * DAY) < 60


def test_doctor_says_until_when_the_certificate_is_good(tmp_path: Path) -> None:
    chosen = settings.load({}, GPUPING_DATA_DIR=str(tmp_path))
    files = TlsFiles(tmp_path / "identity" / "tls")
    certificates.make(files, ["bus.example.org"])
    (certificate,) = certificate_check.check(chosen)
    assert (certificate.check, certificate.level) == ("certificate", "ok")
    files.certificate.write_text("no certificate")
    assert certificate_check.check(chosen)[0].level == "failure"
