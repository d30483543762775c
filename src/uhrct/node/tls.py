"""Contexts for TLS from the certificates of the configuration."""

from __future__ import annotations

import ssl

from uhrct.core.errors import UhrctError
from uhrct.node.config import Tls


def server_context(tls: Tls | None) -> ssl.SSLContext | None:
    """For a server. With `ca`, clients need a certificate of that authority.

    Raises
    ------
    UhrctError
        If a certificate or key is missing or cannot be used.
    """
    if tls is None:
        return None
    if tls.certificate is None or tls.key is None:
        raise UhrctError("tls of a server needs certificate and key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, tls)


def client_context(tls: Tls | None) -> ssl.SSLContext | None:
    """For a client. The other side's certificate and host name are always checked. Raises as `server_context`."""
    if tls is None:
        return None
    context = ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _loaded(context, tls)


def _loaded(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as error:  # also ssl.SSLError
        files = ", ".join(str(f) for f in (tls.certificate, tls.key, tls.ca) if f is not None)
        raise UhrctError(f"tls: {files}: cannot be used ({error})") from None
    return context
