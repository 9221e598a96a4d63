"""Fetching pictures from servers that may be slow, broken or hostile."""
import ipaddress
import socket
import threading
import time
from urllib.parse import urljoin

import urllib3

REDIRECTS = 5
TIMEOUT = urllib3.Timeout(connect=10, read=10)  # seconds for each thing that a server says
MOST_SECONDS = 60  # for all of it
MOST_BYTES = 20 * 2**20  # of a picture
BUSY = (408, 429)  # and all from 500 on: another time may be better
PAUSE = 0.5  # seconds between two requests to the same host
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; photo collector for study)", "Accept": "image/jpeg, image/png, image/webp"}
ASSIGNED, SIX_TO_FOUR = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("2002::/16")  # all of IPv6 that hosts have
HERE = threading.local()  # .call: the request that this thread waits for


class Refused(Exception):
    """A picture that is not to be had, however often one asks; the message says why."""


class Call:
    """A request under way, and whether it was ended because it took too long."""

    socket, late = None, False


class Watched:
    """A connection on which another thread can hang up."""

    def request(self, *arguments, **others):
        super().request(*arguments, **others)
        HERE.call.socket = self.sock


class Public(Watched):
    """One that lets go, before it has said anything, of a host in a private network: of one's router, say."""

    def _new_conn(self):
        connection = super()._new_conn()
        if is_private(connection.getpeername()[0]):
            connection.close()
            raise Refused("leads to a private address")
        return connection


def is_private(host):
    """Whether a host is written as an address that the web does not lead to, or as localhost."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host == "localhost"
    if address.version == 6 and (address not in ASSIGNED or address in SIX_TO_FOUR):
        return True
    return not address.is_global or address.is_multicast


def connections(kind):
    """Connections of that kind, to any host."""
    pools = urllib3.PoolManager(maxsize=64)
    pools.pool_classes_by_scheme = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": type(kind.__name__, (kind, pool.ConnectionCls), {})})
        for scheme, pool in (("http", urllib3.HTTPConnectionPool), ("https", urllib3.HTTPSConnectionPool))}
    return pools


def place(url):
    """Scheme, host and port of an address, as urllib3 sees them. Raises Refused for what is no web address."""
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        raise Refused("not a web address") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise Refused("not a web address")
    return parts.scheme, parts.host, parts.port or {"http": 80, "https": 443}[parts.scheme]


class Fetcher:
    """Fetches pictures from servers that may be slow, broken or hostile.

    trusted  whether the addresses come from the user, who may name hosts of a private network. Where a server leads on to another
             host, that one must be public in any case.
    """

    def __init__(self, trusted):
        self.trusted, self.anywhere, self.public = trusted, connections(Watched), connections(Public)
        self.lock, self.free_at, self.calls, self.stopped = threading.Lock(), {}, set(), threading.Event()

    def fetch(self, url):
        """The bytes at `url`. Raises Refused, or OSError and urllib3's errors where another attempt may work."""
        home = place(url)
        for hop in range(REDIRECTS + 1):
            free = self.trusted and (hop == 0 or place(url) == home and is_private(home[1]))
            self.await_turn(place(url))
            target, content = self.ask(self.anywhere if free else self.public, url)
            if not target:
                return content
            try:
                url = urljoin(url, target)
            except ValueError:
                raise Refused("not a web address") from None
        raise Refused("sent on and on")

    def await_turn(self, host):
        """Waits so that a host is asked no more often than once in PAUSE seconds."""
        with self.lock:
            turn = max(time.monotonic(), self.free_at.get(host, 0))
            self.free_at[host] = turn + PAUSE
        if self.stopped.wait(max(0, turn - time.monotonic())):
            raise Refused("stopped")

    def ask(self, connections, url):
        """One request: where it leads on to, or None, and the bytes that came. Hangs up when it takes too long."""
        call = HERE.call = Call()
        timer = threading.Timer(MOST_SECONDS, hang_up, [call])
        timer.daemon = True
        timer.start()
        self.calls.add(call)
        error = None
        try:
            with connections.request("GET", url, headers=HEADERS, timeout=TIMEOUT, redirect=False, retries=False,
                                     preload_content=False, decode_content=False) as answer:
                target = answer.get_redirect_location()
                content = b"" if target else read(answer, call)
        except (OSError, urllib3.exceptions.HTTPError) as problem:
            error = problem
        finally:
            timer.cancel()
            self.calls.discard(call)
        if call.late:
            raise Refused(f"took longer than {MOST_SECONDS} s")
        if error:
            raise error
        return target, content

    def stop(self):
        """Hangs up on all servers."""
        self.stopped.set()
        for call in list(self.calls):
            hang_up(call)


def hang_up(call):
    """Ends a request that another thread waits for."""
    call.late = True
    if call.socket:
        try:
            call.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself


def read(answer, call):
    """The body of an answer, as long as it is no larger than a picture."""
    if answer.status in BUSY or answer.status >= 500:
        raise OSError(f"status {answer.status}")
    if answer.status != 200:
        raise Refused(f"status {answer.status}")
    content = bytearray()
    while not call.late and (block := answer.read1(2 ** 16)):  # what has come, however little
        content += block
        if len(content) > MOST_BYTES:
            raise Refused(f"larger than {MOST_BYTES >> 20} MiB")
    return bytes(content)
