"""The check of what the bus shows to its clients: the certificate in the data dir."""

import time

from bus.errors import GpupingError
from bus.identity import local
from bus.settings import Settings
from gpuping import extras
from gpuping.output.findings import Finding, failure, ok, warning

WARN_SECONDS = 30 * 86_400


def check(settings: Settings) -> list[Finding]:
    """Until when it is good; no finding where there is none."""
    files = local.tls_files_of(local.folder_of(settings.data_dir))
    if not files.certificate.exists():
        return []
    with extras.needed("server"):
        from bus.identity.tls import certificates
    try:
        expires_at = certificates.expires_at(files.certificate)
    except GpupingError as error:
        return [failure("certificate", str(error), "gpuping creds init --tls-names NAMES")]
    detail = f"that of the bus is good until {expires_at:%Y-%m-%d}"
    advice = "`gpuping creds init --tls-names NAMES`, or --tls-cert, and start the server again"
    left_seconds = expires_at.timestamp() - time.time()
    if left_seconds <= 0:
        return [failure("certificate", detail, advice)]
    if left_seconds < WARN_SECONDS:
        return [warning("certificate", detail, advice)]
    return [ok("certificate", detail)]
