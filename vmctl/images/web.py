"""The one door to http: requests that end in time, TLS always verified, redirects looked at.

Only `download` opens it. Nothing here has a total time: a request ends when nothing, or next to
nothing, has come for a while.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import urllib3
from urllib3 import connection, exceptions

import vmctl
from vmctl import errors

MOST_REDIRECTS = 10
STALL_SECONDS = 30.0
"""So long nothing may happen: no connection, no answer, next to no data."""

SLOWEST = 1024
"""Bytes per second below which a transfer counts as stalled, as curl's --speed-limit."""

CONNECT_SECONDS = 15.0
"""So long one address of a server is tried; meanwhile nothing else can end the request."""

_TICK = 0.25
_REDIRECTS = (301, 302, 303, 307, 308)


class LostError(Exception):
    """The connection broke, or the server is busy: worth another try.

    `problem` is what to raise when no further try is made.
    """

    def __init__(self, problem: errors.VmctlError) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Answer:
    """A server's answer whose body is still to be read; `url` is the one that redirects led to."""

    def __init__(self, url: str, response: urllib3.BaseHTTPResponse, watch: _Watch) -> None:
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._watch = watch

    def read(self, most: int) -> bytes:
        """Return what has come, at most so many bytes; nothing at the end.

        Raises LostError when the connection breaks before the announced end, WaitTimeoutError when
        it stalls, and what the pulse raises.
        """
        with _failures_said(self.url, self._watch):
            content = self._response.read1(most)
        self._watch.heard(len(content))
        return content


Pulse = Callable[[], None]
"""Called several times a second while waiting; what it raises ends the request."""


@contextlib.contextmanager
def opened(
    url: str, headers: Callable[[str], Mapping[str, str]], pulse: Pulse, *, secure: bool
) -> Iterator[Answer]:
    """Send a GET request, follow redirects, and give the answer, whatever its status.

    `headers` is asked for each address on the way. `secure` accepts https alone. Raises LostError,
    RefusedError for a redirect or certificate that is not accepted, WaitTimeoutError, and what
    `pulse` raises.
    """
    with _Watch(pulse) as watch, contextlib.ExitStack() as stack:
        for _ in range(MOST_REDIRECTS + 1):
            _require_allowed(url, secure=secure)
            response = stack.enter_context(_sent(url, headers(url), watch))
            if response.status not in _REDIRECTS:
                yield Answer(url, response, watch)
                return
            url = _next(url, response)
            stack.close()
        raise errors.RefusedError(
            f"The server redirects more than {MOST_REDIRECTS} times, lastly to '{shown(url)}'.",
            hint="Give the address of the file itself.",
        )


def shown(url: str) -> str:
    """Return an address as it may be shown: what follows `?` is a secret with some publishers."""
    bare, mark, _ = url.partition("?")
    return f"{bare}{mark and '?…'}"


def _require_allowed(url: str, *, secure: bool) -> None:
    if secure and not url.startswith("https://"):
        raise errors.RefusedError(
            f"'{shown(url)}' is not https, and nothing else says what the content should be.",
            hint="Use https, or say what is expected: {url:, sha256:, format:}",
        )


def _next(url: str, response: urllib3.BaseHTTPResponse) -> str:
    """Return where a redirect leads."""
    wanted = response.headers.get("Location", "")
    try:
        target = urllib.parse.urljoin(url, wanted)
        parts = urllib.parse.urlsplit(target)
        host, scheme = parts.hostname, parts.scheme
    except ValueError:
        host, scheme, target = None, "", wanted
    hint = "If you trust its source, download the file and name it by its path."
    if not wanted or not host or scheme not in ("http", "https"):
        raise errors.RefusedError(
            f"'{shown(url)}' redirects to '{wanted[:500]}', which is no web address.", hint=hint
        )
    if url.startswith("https:") and scheme != "https":
        raise errors.RefusedError(
            f"'{shown(url)}' redirects to '{shown(target)[:500]}', from https to a connection "
            "that is not secure.",
            hint=hint,
        )
    return target


@contextlib.contextmanager
def _sent(
    url: str, headers: Mapping[str, str], watch: _Watch
) -> Iterator[urllib3.BaseHTTPResponse]:
    manager = _manager(url, watch)
    try:
        watch.begin(0)
        with _failures_said(url, watch):
            response = manager.request(
                "GET",
                url,
                headers={
                    "User-Agent": f"vmctl/{vmctl.__version__}",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    **headers,
                },
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        watch.begin(SLOWEST)
        try:
            yield response
        finally:
            response.close()
    finally:
        manager.clear()


def _manager(url: str, watch: _Watch) -> urllib3.PoolManager:
    """Return what makes connections: through the proxy of the environment, if there is one.

    The certificates are the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR: OpenSSL reads
    these variables itself.
    """
    context = ssl.create_default_context()
    proxy = _proxy(url)
    manager: urllib3.PoolManager
    if proxy:
        parts = urllib.parse.urlsplit(proxy)
        name, word = (urllib.parse.unquote(each or "") for each in (parts.username, parts.password))
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        access = urllib3.make_headers(proxy_basic_auth=f"{name}:{word}") if name else None
        try:
            manager = urllib3.ProxyManager(
                bare, proxy_headers=access, ssl_context=context, proxy_ssl_context=context
            )
        except exceptions.ProxySchemeUnknown:
            raise errors.UsageError(
                f"The proxy '{bare}' is of a kind that vmctl cannot use.",
                hint="Set https_proxy and http_proxy to one that begins with http:// or https://",
            ) from None
    else:
        manager = urllib3.PoolManager(ssl_context=context)
    manager.pool_classes_by_scheme = _watched_pools(watch)
    return manager


def _proxy(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    known = urllib.request.getproxies()
    proxy = known.get(parts.scheme) or known.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _watched_pools(watch: _Watch) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return pools whose connections the watch can cut."""

    class Connection(connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watch.guard(self, super()._new_conn())

    class SecureConnection(connection.HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return watch.guard(self, super()._new_conn())

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": PlainPool, "https": SecurePool}


class _Watch:
    """Cuts connections that stall: a time limit for each read would not notice a slow drip.

    It holds a second descriptor of each socket, so that it need not know what is done with the
    first. `reason` is why it cut.
    """

    def __init__(self, pulse: Pulse) -> None:
        self.reason: BaseException | None = None
        self._pulse = pulse
        self._sockets: list[socket.socket] = []
        self._owners: list[connection.HTTPConnection] = []
        self._over = threading.Event()
        self._least = 0.0
        self._count = 0
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._attend, name="vmctl-download", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for owner in self._owners:
            owner.close()
        for each in self._sockets:
            each.close()

    def guard(self, owner: connection.HTTPConnection, made: socket.socket) -> socket.socket:
        """Take note of a new connection."""
        self._owners.append(owner)
        self._sockets.append(made.dup())
        return made

    def begin(self, least: float) -> None:
        """Begin to count anew; from now on at least so many bytes per second must come."""
        self._least, self._count, self._since = least, 0, time.monotonic()

    def heard(self, count: int) -> None:
        """Take note of bytes that came."""
        self._count += count

    def _attend(self) -> None:
        while not self._over.wait(_TICK):
            try:
                self._pulse()
                self._refuse_stall()
            except BaseException as problem:  # noqa: BLE001  (raised again by the reading thread)
                self.reason = problem
                for each in self._sockets:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                return

    def _refuse_stall(self) -> None:
        if time.monotonic() - self._since < STALL_SECONDS:
            return
        if self._least == 0 or self._count < self._least * STALL_SECONDS:
            seen = f"{self._count} bytes came" if self._least else "no answer came"
            raise TimeoutError(f"{seen} in {STALL_SECONDS:.0f} s")
        self.begin(self._least)


@contextlib.contextmanager
def _failures_said(url: str, watch: _Watch) -> Iterator[None]:
    """Turn what goes wrong on the way into errors for people."""
    try:
        yield
        # What a cut connection leaves may look like an orderly end.
        if watch.reason is not None:
            raise ConnectionAbortedError
    except (exceptions.HTTPError, OSError, ValueError) as problem:
        if watch.reason is not None and not isinstance(watch.reason, TimeoutError):
            raise watch.reason from None
        raise _failure(url, watch.reason or problem) from None


def _failure(url: str, problem: BaseException) -> Exception:
    host, url = urllib.parse.urlsplit(url).netloc, shown(url)
    late = isinstance(problem, (TimeoutError, exceptions.TimeoutError))
    # A refused connection and an unknown name count as timeouts with urllib3.
    if late and not isinstance(problem, exceptions.NewConnectionError):
        if isinstance(problem, exceptions.ConnectTimeoutError):
            seen = f"no connection was made in {CONNECT_SECONDS:.0f} s"
        elif isinstance(problem, exceptions.HTTPError):
            seen = f"nothing came in {STALL_SECONDS:.0f} s"
        else:
            seen = str(problem)
        return errors.WaitTimeoutError(
            f"The server '{host}' has stalled: {seen} from '{url}'.",
            hint="Run the same command again: it goes on where this one stopped.",
        )
    reason = _certificate_problem(problem)
    if reason:
        return errors.RefusedError(
            f"The certificate of '{host}' is not trusted: {reason}.",
            hint="Where a private authority signs: export SSL_CERT_FILE=/path/to/its/ca.pem",
        )
    if isinstance(problem, exceptions.LocationValueError | ValueError):
        return errors.UsageError(f"'{url}' is no web address that can be fetched: {problem}.")
    return LostError(
        errors.HostError(
            f"'{url}' cannot be fetched: {_shortly(problem)}.",
            hint="Check the network, and the proxy settings (https_proxy, no_proxy), then run the "
            "same command again: it goes on where this one stopped.",
            details=f"{type(problem).__name__}: {problem}",
        )
    )


def _certificate_problem(problem: BaseException | None) -> str:
    """Return why a certificate was refused, or nothing when that is not what happened."""
    while problem is not None:
        if isinstance(problem, ssl.SSLCertVerificationError):
            return problem.verify_message or "certificate verify failed"
        inner = problem.args[0] if problem.args else None
        problem = inner if isinstance(inner, BaseException) else problem.__cause__
    return ""


def _shortly(problem: BaseException) -> str:
    """Return what happened in a few words."""
    if isinstance(problem, exceptions.ProxyError):
        return "the proxy cannot be used"
    if isinstance(problem, exceptions.NameResolutionError):
        return "the name of the server is not known"
    if isinstance(problem, exceptions.NewConnectionError):
        return "the server does not take connections"
    inner = problem.args[-1] if problem.args else None
    if isinstance(inner, exceptions.IncompleteRead) and inner.expected:
        return f"the connection ended {inner.expected} bytes too early"
    if isinstance(problem, exceptions.SSLError | ssl.SSLError):
        return "the secure connection failed"
    return "the connection broke"
