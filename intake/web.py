"""Fetching pictures from servers that may be slow, broken or hostile."""
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import quote, urljoin, urlsplit

REDIRECTS = 5
SILENCE = 10  # seconds that a server may say nothing
MOST_SECONDS = 60  # for a picture, redirects included
MOST_BYTES = 20 * 2**20  # of a picture
BUSY = (408, 429)  # and all from 500 on: another time may be better
PAUSE = 0.5  # seconds between two requests to the same server
PORTS = {"http": 80, "https": 443}
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; photo collector for study)",
           "Accept": "image/jpeg, image/png, image/webp, image/avif;q=0.5"}  # not every Pillow opens the last
ASSIGNED = ipaddress.ip_network("2000::/3")  # all of IPv6 that hosts on the web have
SPECIAL = [ipaddress.ip_network(block) for block in (  # what ipaddress calls global, or does in some versions of Python
    "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20",  # protocols' own, and IPv6 through IPv4
    "168.63.129.16/32")]  # what runs Azure's machines; that of Oracle's is in the first block


class Refused(Exception):
    """A picture that is not to be had, however often one asks; the message says why."""


def parse(url):
    """A web address → its server, (scheme, host, port), and what to ask it for. Raises Refused for what is no web address."""
    try:
        parts = urlsplit(url)
        default = PORTS[parts.scheme]
        host = (parts.hostname or "").rstrip(".").encode("idna").decode()
        if not host:
            raise ValueError
        path = (parts.path or "/") + (parts.query and f"?{parts.query}")
        # What is encoded already stays as it is.
        return (parts.scheme, host, parts.port or default), quote(path, safe="!$%&'()*+,/:;=?@[]~")
    except (ValueError, KeyError):
        raise Refused("not a web address") from None


def is_public(address):
    """Whether an IP address is on the web: not this machine's, its network's, or the computing centre's."""
    address = ipaddress.ip_address(address)
    if address.version == 6 and address not in ASSIGNED:
        return False
    return address.is_global and not address.is_multicast and not any(address in block for block in SPECIAL)


def resolve(host, port, private):
    """Where a host is, as socket.getaddrinfo says it. Unless it may be `private`, raises Refused where no address is public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = [place for place in found if private or is_public(place[4][0])]
    if not found:
        raise Refused("leads to a private address")
    return found


def patience(deadline):
    """How many seconds to wait for what comes next. Raises TimeoutError from the deadline on."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(SILENCE, left)


class Impatient:
    """A socket that waits until `deadline`, a time.monotonic(), and no longer, even where a byte comes now and then."""

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
    """A socket on which the host listens, at the first of the places where it answers. Raises OSError where it does at none.

    The name of the host is not looked up again, for it may lead elsewhere by now. With https the certificate must be for it.
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
    """One request: where it leads on to, or None, and the bytes that came."""
    scheme, host, port = server
    with connect(scheme, host, places, deadline) as connection:
        conversation = http.client.HTTPConnection(host, port)
        conversation.sock, conversation.default_port = connection, PORTS[scheme]
        conversation.request("GET", path, headers=HEADERS)
        with conversation.getresponse() as answer:
            target = answer.getheader("Location") if answer.status in (301, 302, 303, 307, 308) else None
            return target, b"" if target else read(answer)


def read(answer):
    """The body of an answer, as long as it is no larger than a picture. Raises Refused, or OSError."""
    if answer.status in BUSY or answer.status >= 500:
        raise OSError(f"status {answer.status}")
    if answer.status != 200:
        raise Refused(f"status {answer.status}")
    content = bytearray()
    while block := answer.read1(2 ** 16):  # read() would take all at once where the server says that a chunk has -1 bytes
        content += block
        if len(content) > MOST_BYTES:
            raise Refused(f"larger than {MOST_BYTES >> 20} MiB")
    if answer.length:  # what was announced and did not come
        raise OSError("cut short")
    return bytes(content)


class Fetcher:
    """Fetches pictures, for many threads at a time.

    trusted  whether the addresses come from the user, who may name hosts of a private network. Where a server leads on to another
             one, that must be public in any case.
    """

    def __init__(self, trusted):
        self.trusted, self.lock, self.free_at = trusted, threading.Lock(), {}

    def fetch(self, url):
        """The bytes at `url`. Raises Refused, or OSError and http.client.HTTPException where another attempt may work."""
        places, left = {}, MOST_SECONDS  # where each server was when it was asked first; seconds
        for _ in range(REDIRECTS + 1):
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
                raise Refused(f"took longer than {MOST_SECONDS} s") from None
            if not target:
                return content
            left = deadline - time.monotonic()
            try:
                url = urljoin(url, target)
            except ValueError:
                raise Refused("not a web address") from None
        raise Refused("sent on and on")

    def await_turn(self, server):
        """Waits so that a server is asked no more often than once in PAUSE seconds."""
        with self.lock:
            turn = max(time.monotonic(), self.free_at.get(server, 0))
            self.free_at[server] = turn + PAUSE
        time.sleep(max(0, turn - time.monotonic()))
