"""Real proxies on this machine in front of a service: configured, started, and gone afterwards.

The settings that the documentation shows are read from there (`documented`), so that they are what
is tested. Only the addresses and the paths of the certificate become those of the test.
"""

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.browser import SITE
from tests.counterparts import needs

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
READY_S = 20.0
PATIENCE_S = 30.0

_UPSTREAM = "127.0.0.1:8765"

# What a process of its own needs to run without privileges, and then Debian's own settings.
_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  sendfile on;
  tcp_nopush on;
  gzip on;
  {inner}
}}
"""
_NGINX_STOCK = """\
{extra}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
  }}
"""
_HAPROXY_STOCK = """\
defaults
  mode http
  timeout connect 5s
  timeout client {idle}
  timeout server {idle}
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server one 127.0.0.1:{upstream}
"""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for `SITE` and this machine, and its key."""

    cert: Path
    key: Path

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cert))


@dataclass(frozen=True)
class Proxy:
    """A running proxy as its clients meet it."""

    port: int
    certificate: Certificate | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext | None:
        return self.certificate.trust() if self.certificate else None

    @asynccontextmanager
    async def session(self, token: str) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=self.trust or True),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        ) as session:
            yield session


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "jobs.pem", folder / "jobs.key")
    subprocess.run(
        [
            *(needs("openssl"), "req", "-x509", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", f"/CN={SITE}", "-addext", f"subjectAltName=DNS:{SITE},IP:127.0.0.1"),
            *("-keyout", str(made.key), "-out", str(made.cert)),
        ],
        check=True,
        capture_output=True,
    )
    return made


def documented(language: str) -> str:
    """The settings that the page shows for this proxy, word for word."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- tested: {language} -->\n```{language}\n(.*?)```", page, re.S)
    assert found is not None, f"{PAGE.name} shows no settings for {language}"
    return found[1]


@contextmanager
def nginx(folder: Path, upstream: int, *, extra: str = "") -> Iterator[Proxy]:
    """Plain `proxy_pass` as everybody writes it first; `extra` stands beside `server`."""
    port = _free_port()
    inner = _NGINX_STOCK.format(extra=extra, port=port, upstream=upstream)
    with _nginx(folder, inner, Proxy(port)) as proxy:
        yield proxy


@contextmanager
def haproxy(folder: Path, upstream: int, *, idle: str = "60s") -> Iterator[Proxy]:
    """HAProxy with the timeouts that it insists on, and nothing else."""
    port = _free_port()
    text = _HAPROXY_STOCK.format(port=port, upstream=upstream, idle=idle)
    with _haproxy(folder, text, Proxy(port)) as proxy:
        yield proxy


@contextmanager
def documented_nginx(folder: Path, upstream: int, certificate: Certificate) -> Iterator[Proxy]:
    proxy = Proxy(_free_port(), certificate)
    text = _moved(
        documented("nginx"),
        ("listen 443 ", f"listen 127.0.0.1:{proxy.port} "),
        ("/etc/ssl/jobs.pem", str(certificate.cert)),
        ("/etc/ssl/jobs.key", str(certificate.key)),
        (_UPSTREAM, f"127.0.0.1:{upstream}"),
    )
    with _nginx(folder, text, proxy):
        yield proxy


@contextmanager
def documented_haproxy(folder: Path, upstream: int, certificate: Certificate) -> Iterator[Proxy]:
    proxy = Proxy(_free_port(), certificate)
    both = folder / "both.pem"
    both.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    text = _moved(
        documented("haproxy"),
        ("bind :443 ", f"bind 127.0.0.1:{proxy.port} "),
        ("/etc/ssl/jobs.pem", str(both)),
        (_UPSTREAM, f"127.0.0.1:{upstream}"),
    )
    with _haproxy(folder, text, proxy):
        yield proxy


@contextmanager
def documented_caddy(folder: Path, upstream: int, certificate: Certificate) -> Iterator[Proxy]:
    """As documented, but for the certificate: Caddy would fetch one for the name from outside."""
    proxy = Proxy(_free_port(), certificate)
    addresses = f"https://{SITE}:{proxy.port}, https://127.0.0.1:{proxy.port}"
    text = _moved(
        documented("caddyfile"),
        (f"{SITE} {{", f"{addresses} {{\n\ttls {certificate.cert} {certificate.key}"),
        (_UPSTREAM, f"127.0.0.1:{upstream}"),
    )
    settings = folder / "Caddyfile"
    settings.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    command = (needs("caddy"), "run", "--adapter", "caddyfile", "--config", str(settings))
    with _running(folder, command, proxy):
        yield proxy


@contextmanager
def _nginx(folder: Path, inner: str, proxy: Proxy) -> Iterator[Proxy]:
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, inner=inner), encoding="utf-8")
    command = (needs("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(settings))
    with _running(folder, command, proxy):
        yield proxy


@contextmanager
def _haproxy(folder: Path, text: str, proxy: Proxy) -> Iterator[Proxy]:
    settings = folder / "haproxy.cfg"
    settings.write_text(text, encoding="utf-8")
    with _running(folder, (needs("haproxy"), "-db", "-f", str(settings)), proxy):
        yield proxy


@contextmanager
def _running(folder: Path, command: Sequence[str], proxy: Proxy) -> Iterator[None]:
    """The proxy listens; after the block it is gone."""
    log = folder / "proxy.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        deadline_s = time.monotonic() + READY_S
        while not _answers(proxy.port):
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            assert time.monotonic() < deadline_s, f"{command[0]} does not listen"
            time.sleep(0.02)
        yield
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _moved(text: str, *replacements: tuple[str, str]) -> str:
    """The text with each of these parts, which must be there, exchanged."""
    for old, new in replacements:
        assert old in text, f"{PAGE.name} does not say {old!r} any more"
        text = text.replace(old, new)
    return text


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port
