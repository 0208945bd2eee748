"""An issuer of JSON Web Tokens that publishes its keys over HTTPS, with a certificate for `localhost` that signs itself."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.certificates import new_key, self_signed

KEY_ID = "first"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Its name, the address of its keys, the authority that its certificate is verified by, and the key that signs."""

    name: str
    keys: str
    ca_file: Path
    key: rsa.RSAPrivateKey

    def token(self, key: rsa.RSAPrivateKey | None = None, **claims: Any) -> str:
        """A token of the issuer that is valid for a minute, with these claims over its own; None takes one away."""
        own = {"iss": self.name, "aud": "tidegate", "sub": "a-subject", "exp": int(time.time()) + 60}
        payload = {name: value for name, value in {**own, **claims}.items() if value is not None}
        signed = f"{_encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': KEY_ID})}.{_encoded(payload)}"
        signature = (key or self.key).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


@contextlib.contextmanager
def issuer(folder: Path, name: str = "https://issuer.example.com/") -> Iterator[Issuer]:
    """Run an issuer; its files are in `folder`."""
    key = new_key()
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": KEY_ID,
        "n": _base64(numbers.n.to_bytes(256, "big")),
        "e": _base64(numbers.e.to_bytes(3, "big")),
    }
    body = json.dumps({"keys": [jwk]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/keys" else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    certificate, private = self_signed(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Issuer(name, f"https://localhost:{server.server_address[1]}/keys", certificate, key)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _encoded(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
