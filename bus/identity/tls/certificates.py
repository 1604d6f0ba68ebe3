"""Makes, adopts and reads the certificate of the bus (`files.py` says where it lies)."""

import ipaddress
import re
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus.addresses import is_ip_address, is_loopback
from bus.errors import GpupingError
from bus.identity import credentials
from bus.identity.tls.files import TlsFiles

VALID_DAYS = 3650
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")  # for the services on the server's own machine
# The servers of a cluster show their certificates to each other as clients, too.
_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CLOCK_SKEW = timedelta(hours=1)
_DNS_NAME = re.compile(r"(?=.{1,253}$)(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?)+")


class CertificateError(GpupingError):
    """A certificate that cannot be made, read or used; the text says what to do about it."""


def make(files: TlsFiles, names: Iterable[str]) -> None:
    """Makes a certificate for a server of these names, and the authority where there is none.

    The names of loopback are added. Making one again replaces the server's key and certificate;
    clients go on, because the authority stays. Raises CertificateError.
    """
    alternatives = _alternatives(names)
    if not files.authority.exists():
        _make_authority(files)
    _make_certificate(files, files, alternatives)


def make_for_site(
    fleet: TlsFiles,
    site: TlsFiles,
    names: Iterable[str],
) -> None:
    """Makes a certificate for another server, signed by the fleet's authority.

    Raises CertificateError, also where the fleet has none.
    """
    _make_certificate(fleet, site, _alternatives(names))


def adopt(files: TlsFiles, certificate: Path, key: Path) -> None:
    """Takes the operator's own certificate and key. Raises CertificateError unless they fit.

    The authority of this fleet is set aside, because it did not sign this certificate.
    """
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        chain_text = certificate.read_text(encoding="ascii")
        key_text = key.read_text(encoding="ascii")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise CertificateError(
            f"{certificate} and {key} are not a certificate and its unencrypted key (PEM): {reason}"
        ) from None
    credentials.write_secret(files.key, key_text)
    credentials.write_secret(files.certificate, chain_text)
    for of_before in (files.authority, files.authority_key):
        if of_before.exists():
            of_before.rename(of_before.with_name(f"{of_before.name}.unused"))


def names_of(certificate: Path) -> list[str]:
    """The names and addresses that a certificate is for, those of loopback last.

    Raises CertificateError.
    """
    found = _load(certificate)
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value.get_values_for_type(x509.DNSName)
    names += [str(one) for one in extension.value.get_values_for_type(x509.IPAddress)]
    return sorted(names, key=is_loopback)


def expires_at(certificate: Path) -> datetime:
    """Until when it is good. Raises CertificateError."""
    return _load(certificate).not_valid_after_utc


def _alternatives(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_alternative(name) for name in dict.fromkeys([*names, *LOOPBACK_NAMES])]


def _make_certificate(
    fleet: TlsFiles,
    server: TlsFiles,
    alternatives: list[x509.GeneralName],
) -> None:
    authority_key = _read_key(fleet.authority_key)
    authority = _load(fleet.authority)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("gpuping bus"))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCK_SKEW)
        .not_valid_after(authority.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    chain = _pem(certificate) + fleet.authority.read_text(encoding="ascii")
    credentials.write_secret(server.key, _key_pem(key))
    credentials.write_secret(server.certificate, chain)


def _make_authority(files: TlsFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = _name("gpuping fleet")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_may_sign(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    credentials.write_secret(files.authority_key, _key_pem(key))
    credentials.write_secret(files.authority, _pem(certificate))


def _may_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    if is_ip_address(name):
        return x509.IPAddress(ipaddress.ip_address(name))
    if not _DNS_NAME.fullmatch(name):
        raise CertificateError(
            f"--tls-names: {name[:80]!r} is neither a host name nor an address: "
            "expected names such as bus.example.org,192.0.2.7"
        )
    return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()


def _load(certificate: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a certificate (PEM)"
        raise CertificateError(f"{certificate}: {reason}") from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        raise CertificateError(
            f"{path} is not here, and without it no certificate of this fleet can be made: "
            "bring it back from where it is kept"
        )
    key = serialization.load_pem_private_key(credentials.read_secret(path).encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path}: not a key that gpuping made")
    return key
