"""Where a download may lead: redirects, certificates, proxies, and servers that are not there."""

from __future__ import annotations

import socket
import threading

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.download import fetching
from tests.images.download.fetching import CONTENT, PATH
from tests.images.publisher import File, Handler, Publisher
from vmctl import errors
from vmctl.images import download


def redirect(target: str, status: int = 302) -> publishing.Behaviour:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(status, b"", {"Location": target} if target else {})

    return behave


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(publisher: Publisher, status: int) -> None:
    publisher.put(PATH, CONTENT)
    url = publisher.put("/old", b"", behave=redirect("images/disk.qcow2", status))
    assert fetching.fetch(url) == CONTENT


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "https://",
        "http://[::1/x",
        "gopher://x/",
        "",
    ],
)
def test_redirects_lead_to_the_web_only(publisher: Publisher, target: str) -> None:
    url = publisher.put("/old", b"", behave=redirect(target))
    with pytest.raises(errors.RefusedError, match="no web address"):
        fetching.fetch(url)


def test_redirects_in_a_circle_end(publisher: Publisher) -> None:
    url = publisher.put("/round", b"", behave=redirect("/round"))
    with pytest.raises(errors.RefusedError, match="more than 10 times"):
        fetching.fetch(url)
    assert len(publisher.asked("/round")) == 11


@pytest.mark.usefixtures("trusted")
def test_https_never_leads_to_http(secure: Publisher, publisher: Publisher) -> None:
    target = publisher.put(PATH, CONTENT)
    url = secure.put("/old", b"", behave=redirect(target))
    for only in (True, False):
        with pytest.raises(errors.RefusedError, match="not secure"):
            fetching.fetch(url, secure=only)
    assert not publisher.requests


def test_http_alone_is_refused_where_nothing_else_protects(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match="not https"):
        fetching.fetch(url, secure=True)
    assert not publisher.requests


@pytest.mark.usefixtures("trusted")
def test_a_private_authority_is_trusted_by_name(secure: Publisher) -> None:
    url = secure.put(PATH, CONTENT)
    assert fetching.fetch(url, secure=True) == CONTENT


def test_a_private_authority_is_not_trusted_by_itself(secure: Publisher) -> None:
    url = secure.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match=r"certificate of .* is not trusted") as caught:
        fetching.fetch(url, secure=True)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert not secure.requests


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_name_is_refused(authority: trustme.CA) -> None:
    with publishing.published() as made:
        # Reached as localhost.localdomain, which its certificate does not have.
        with publishing.published(authority) as secure:
            secure.put(PATH, CONTENT)
            url = f"https://127.0.0.2:{secure.port}{PATH}"
            listener = forwarded(secure.port)
            url = f"https://127.0.0.2:{listener.getsockname()[1]}{PATH}"
            with pytest.raises(errors.RefusedError, match="not trusted"):
                fetching.fetch(url, secure=True)
            listener.close()
        assert not made.requests


def forwarded(port: int) -> socket.socket:
    """Listen on another address and hand one connection on."""
    listener = socket.create_server(("127.0.0.2", 0))

    def serve() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=publishing._copy, args=(far, near), daemon=True)
            back.start()
            publishing._copy(near, far)
            back.join(5)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_proxy_of_the_environment_is_used(
    publisher: Publisher, secure: Publisher, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = secure.put(PATH, CONTENT)
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{publisher.port}")
    assert fetching.fetch(url, secure=True) == CONTENT
    assert [seen.path for seen in publisher.requests] == [f"CONNECT 127.0.0.1:{secure.port}"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetching.fetch(url, secure=True) == CONTENT
    assert len(publisher.requests) == 1


def test_a_proxy_that_is_not_there_is_said(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(errors.HostError, match="proxy") as caught:
        fetching.fetch(publisher.put(PATH, CONTENT))
    assert "https_proxy" in caught.value.hint
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(errors.UsageError, match="kind that vmctl cannot use"):
        fetching.fetch(publisher.url(PATH))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    with pytest.raises(errors.HostError, match="does not take connections"):
        fetching.fetch(f"http://127.0.0.1:{closed_port()}/x")
    with pytest.raises(errors.HostError, match="name of the server is not known"):
        fetching.fetch("http://nowhere.invalid/x")
