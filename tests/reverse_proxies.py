"""A real nginx and a real Caddy in front of a gateway, as docs/reverse-proxy.md configures them."""

import asyncio
import contextlib
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

DOCS = Path(__file__).parents[1] / "docs/reverse-proxy.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here")
CADDY = shutil.which("caddy")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="no caddy here")


def documented(heading: str) -> str:
    """Returns the configuration below a heading of docs/reverse-proxy.md."""
    section = DOCS.read_text().partition(f"\n## {heading}\n")[2]
    return re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)[0]


def certificate(folder: Path) -> tuple[Path, Path]:
    key, pem = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:localhost,DNS:example.org", "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


@contextlib.asynccontextmanager
async def nginx(folder: Path, server: str, gateway: httpx.URL) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTPS client of an nginx in front of the gateway."""
    port = free_port()
    pem, key = certificate(folder)
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("/etc/ssl/certs/example.org.pem", f'"{pem}"')
    server = server.replace("/etc/ssl/private/example.org.key", f'"{key}"')
    server = server.replace("127.0.0.1:8000", f"127.0.0.1:{gateway.port}")
    temporary = "".join(
        f'{name}_temp_path "{folder}/{name}";\n'
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f'daemon off; pid "{folder}/pid"; error_log stderr; worker_processes 1;\n'
        f"events {{}}\nhttp {{ access_log off; {temporary} {server} }}\n"
    )
    async with serving(port, pem, str(NGINX), "-p", str(folder), "-c", str(config)) as http:
        yield http


@contextlib.asynccontextmanager
async def caddy(folder: Path, server: str, gateway: httpx.URL) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTPS client of a Caddy in front of the gateway."""
    port = free_port()
    pem, key = certificate(folder)
    site = f'https://localhost:{port} {{\n    tls "{pem}" "{key}"'
    server = server.replace("example.org {", site)
    server = server.replace("127.0.0.1:8000", f"127.0.0.1:{gateway.port}")
    config = folder / "Caddyfile"
    # no ports besides its own, and nothing in the user's folders
    config.write_text(f"{{\n admin off\n auto_https disable_redirects\n}}\n{server}")
    command = (str(CADDY), "run", "--config", str(config), "--adapter", "caddyfile")
    async with serving(port, pem, *command, home=folder) as http:
        yield http


PROXIES = {"nginx": nginx, "Caddy": caddy}


@contextlib.asynccontextmanager
async def serving(
    port: int, pem: Path, *command: str, home: Path | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTPS client of a proxy, which runs for the length of a block."""
    environ = dict(os.environ)
    if home is not None:
        environ |= {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    context = ssl.create_default_context(cafile=str(pem))
    try:
        base = f"https://localhost:{port}"
        async with httpx.AsyncClient(base_url=base, verify=context, timeout=20) as http:
            async with asyncio.timeout(60):
                while True:
                    assert process.returncode is None
                    with contextlib.suppress(httpx.ConnectError):
                        await http.get("/")
                        break
                    await asyncio.sleep(0.05)
            yield http
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
