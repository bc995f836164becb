"""TLS certificates: a self-signed one for the host, files of the operator, and none."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from streamsvc.core import clock
from streamsvc.core.config import Models, Server, Settings
from streamsvc.core.errors import ConfigError
from streamsvc.service.certificate import certificate, self_signed


def test_a_self_signed_certificate_names_the_host_and_its_key_is_private(tmp_path: Path) -> None:
    cert_path, key_path = self_signed(tmp_path, "192.0.2.7")
    made = x509.load_pem_x509_certificate(Path(cert_path).read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("192.0.2.7"),
    ]
    assert made.not_valid_before_utc < clock.utc() < made.not_valid_after_utc
    assert made.not_valid_after_utc - clock.utc() <= timedelta(days=30)
    assert Path(key_path).stat().st_mode & 0o777 == 0o600


def test_a_host_name_gives_a_certificate_for_the_loopback_names(tmp_path: Path) -> None:
    cert_path, _ = self_signed(tmp_path, "example.test")
    made = x509.load_pem_x509_certificate(Path(cert_path).read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


def test_tls_is_off_by_default_and_self_signed_on_request(tmp_path: Path) -> None:
    assert certificate(Settings(models=Models(dir=tmp_path))) is None
    made = certificate(Settings(models=Models(dir=tmp_path), server=Server(tls_self_signed=True)))
    assert made == (str(tmp_path / "tls" / "cert.pem"), str(tmp_path / "tls" / "key.pem"))
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_a_tls_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("")
    server = Server(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match=r"key\.pem does not exist"):
        certificate(Settings(server=server))
