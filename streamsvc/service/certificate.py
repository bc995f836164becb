"""The server's TLS certificate: files of the operator, or a self-signed one that is made at start."""

from __future__ import annotations

import contextlib
import ipaddress
from datetime import timedelta
from pathlib import Path

from streamsvc.core import clock
from streamsvc.core.config import Settings
from streamsvc.core.errors import ConfigError


def certificate(settings: Settings) -> tuple[str, str] | None:
    """Paths of certificate chain and key, PEM; None: TLS is off.

    Raises:
        ConfigError: a file of the settings does not exist.
    """
    if settings.server.tls_cert is not None and settings.server.tls_key is not None:
        for path in (settings.server.tls_cert, settings.server.tls_key):
            if not path.is_file():
                raise ConfigError(f"the TLS file {path} does not exist")
        return str(settings.server.tls_cert), str(settings.server.tls_key)
    if not settings.server.tls_self_signed:
        return None
    folder = settings.models.dir / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return self_signed(folder, settings.server.host)


def self_signed(folder: Path, host: str) -> tuple[str, str]:
    """Write a self-signed certificate for `host` and localhost, and its key, into `folder`.

    Valid for 30 days; the key has mode 0600.
    """
    from cryptography import x509  # imported here: TLS is off by default
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "streamsvc self-signed")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    with contextlib.suppress(ValueError):  # a host name
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    now = clock.utc()
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(cert_path), str(key_path)
