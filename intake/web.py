"""Fetching pictures from servers that may be slow, broken or hostile."""
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import quote, urljoin, urlsplit

MAX_REDIRECTS = 5
MAX_SILENCE = 10  # seconds without a byte from a server
MAX_SECONDS = 60  # for a picture, redirects included
MAX_BYTES = 20 * 2**20  # of a picture
BUSY = (408, 429)  # statuses of which, as of all from 500 on, another attempt may get another
PAUSE = 0.5  # seconds between two requests to the same server
PORTS = {"http": 80, "https": 443}
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; photo collector for study)",
           "Accept": "image/jpeg, image/png, image/webp, image/avif;q=0.5"}  # not every Pillow opens AVIF
ASSIGNED = ipaddress.ip_network("2000::/3")  # the addresses of IPv6 that hosts on the web have
SPECIAL = [ipaddress.ip_network(block) for block in (  # not public, although ipaddress calls them global in some Python versions
    "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20",  # for protocols, and for IPv6 over IPv4
    "168.63.129.16/32")]  # the host of Azure's machines; that of Oracle's is in the first block


class Refused(Exception):
    """A picture that no attempt will get; the message says why."""


def parse(url):
    """A web address → its server, (scheme, host, port), and the path to request. Raises Refused for any other text."""
    try:
        parts = urlsplit(url)
        default = PORTS[parts.scheme]
        host = (parts.hostname or "").rstrip(".").encode("idna").decode()
        if not host:
            raise ValueError
        path = (parts.path or "/") + (parts.query and f"?{parts.query}")
        # Parts that are encoded already stay as they are.
        return (parts.scheme, host, parts.port or default), quote(path, safe="!$%&'()*+,/:;=?@[]~")
    except (ValueError, KeyError):
        raise Refused("not a web address") from None


def is_public(address):
    """Whether an IP address is public: not of this machine, its network, or the computing centre."""
    address = ipaddress.ip_address(address)
    if address.version == 6 and address not in ASSIGNED:
        return False
    return address.is_global and not address.is_multicast and not any(address in block for block in SPECIAL)


def resolve(host, port, private):
    """The addresses of a host, as socket.getaddrinfo gives them: the public ones, or all where they may be `private`.

    Raises Refused where there are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = [place for place in found if private or is_public(place[4][0])]
    if not found:
        raise Refused("a private address")
    return found


def patience(deadline):
    """The timeout for the next bytes, in seconds. Raises TimeoutError once the deadline has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(MAX_SILENCE, left)


class Impatient:
    """A socket that stops waiting at `deadline`, a time.monotonic(), also where bytes come slowly."""

    def recv_into(self, *arguments):
        self.settimeout(patience(self.deadline))
        return super().recv_into(*arguments)


class PlainSocket(Impatient, socket.socket):
    """For http."""


class TLSSocket(Impatient, ssl.SSLSocket):
    """For https."""


TLS = ssl.create_default_context()
TLS.sslsocket_class = TLSSocket


def connect(scheme, host, places, deadline):
    """A socket that is connected to the host, at the first of its addresses that answers. Raises OSError where none does.

    The host's name is not looked up again, for a second look-up could give a private address. With https the certificate must be
    for the host.
    """
    for *kind, _, address in places:
        connection = None
        try:
            connection = PlainSocket(*kind)
            connection.settimeout(patience(deadline))
            connection.connect(address)
            if scheme == "https":
                connection.settimeout(patience(deadline))
                connection = TLS.wrap_socket(connection, server_hostname=host)
            connection.deadline = deadline
            return connection
        except OSError as problem:
            error = problem
            if connection:
                connection.close()
    raise error


def ask(server, path, places, deadline):
    """One request: the address of a redirect, or None, and the bytes that came."""
    scheme, host, port = server
    with connect(scheme, host, places, deadline) as connection:
        conversation = http.client.HTTPConnection(host, port)
        conversation.sock, conversation.default_port = connection, PORTS[scheme]
        conversation.request("GET", path, headers=HEADERS)
        with conversation.getresponse() as answer:
            target = answer.getheader("Location") if answer.status in (301, 302, 303, 307, 308) else None
            return target, b"" if target else read(answer)


def read(answer):
    """The body of an answer. Raises Refused where it is larger than MAX_BYTES or its status final, else OSError."""
    if answer.status in BUSY or answer.status >= 500:
        raise OSError(f"status {answer.status}")
    if answer.status != 200:
        raise Refused(f"status {answer.status}")
    content = bytearray()
    while block := answer.read1(2 ** 16):  # read() would take any number of bytes at once for a chunk of -1 bytes
        content += block
        if len(content) > MAX_BYTES:
            raise Refused(f"larger than {MAX_BYTES >> 20} MiB")
    if answer.length:  # bytes that were announced and did not come
        raise OSError("truncated")
    return bytes(content)


class Fetcher:
    """Fetches pictures; many threads may use it at the same time.

    trusted  whether the addresses come from the user, who may name hosts of a private network. A server to which another one
             redirects must be public in any case.
    """

    def __init__(self, trusted):
        self.trusted, self.lock, self.free_at = trusted, threading.Lock(), {}

    def fetch(self, url):
        """The bytes at `url`. Raises Refused, or OSError and http.client.HTTPException where another attempt may work."""
        places, left = {}, MAX_SECONDS  # the addresses of each server at its first request; seconds
        for _ in range(MAX_REDIRECTS + 1):
            server, path = parse(url)
            self.await_turn(server)
            deadline = time.monotonic() + left
            try:
                if server not in places:
                    places[server] = resolve(*server[1:], private=self.trusted and not places)
                target, content = ask(server, path, places[server], deadline)
            except TimeoutError:
                if time.monotonic() < deadline:
                    raise
                raise Refused(f"took longer than {MAX_SECONDS} s") from None
            if not target:
                return content
            left = deadline - time.monotonic()
            try:
                url = urljoin(url, target)
            except ValueError:
                raise Refused("not a web address") from None
        raise Refused(f"more than {MAX_REDIRECTS} redirects")

    def await_turn(self, server):
        """Waits such that a server gets no more than one request in PAUSE seconds."""
        with self.lock:
            turn = max(time.monotonic(), self.free_at.get(server, 0))
            self.free_at[server] = turn + PAUSE
        time.sleep(max(0, turn - time.monotonic()))
