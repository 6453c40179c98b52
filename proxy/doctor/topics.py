"""What each finding means: its title, the likely cause, what to do, and the page of the documentation.

The names are stable: scripts read them. The table of docs/doctor.md has the same ones, which a test sees to.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of finding."""

    title: str
    cause: str
    advice: str
    page: str


_STICKY = (
    "Requests of one session reach different instances: nothing keeps them together, or by something that"
    " this client does not send."
)
_PIN = (
    "Keep each session at its instance. This proxy does so by the session itself; a balancer needs at least a"
    " cookie of its own."
)
_COOKIELESS = (
    "Sessions are held by a cookie, and this client keeps none: Copilot on another site, private windows and"
    " some browsers do not."
)
_NO_COOKIE = "Hold sessions by what each request says, as this proxy does, rather than by a cookie."
_INSTANCE = "The request reached an instance that does not hold its session."

TOPICS: Final = {
    "tls": Topic(
        "HTTPS",
        "The certificate is not one that browsers accept, ends soon, or the site is open without HTTPS.",
        "Renew the certificate with its whole chain, for this name, and redirect http:// to https://.",
        "https.md",
    ),
    "page": Topic(
        "The page of the app",
        "Nobody listens there, no instance is ready, or the address leads to something else than Chainlit.",
        "Open the address in a browser, and see whether an instance is up behind it.",
        "troubleshooting.md#503-or-the-page-one-moment",
    ),
    "root_path": Topic(
        "The root path",
        "The path of the address and the one that Chainlit was started with differ: something in between"
        " takes the prefix off, or the instance has no --root-path.",
        "Start the instances with --root-path, and pass paths on unchanged.",
        "deployment/root-path.md",
    ),
    "versions": Topic(
        "One version on all instances",
        "Instances have different versions of Chainlit, or different builds of the page: names of assets"
        " contain a hash, and a page from one instance asks another one for its own.",
        "Run the same version of Chainlit and of the app everywhere.",
        "troubleshooting.md#a-blank-page-after-an-upgrade-assets-404",
    ),
    "login": Topic(
        "The login",
        "The app asks for a login, and what was given is none, or one that has ended.",
        "Log in with a browser, and give its cookie: --cookie 'access_token=...'.",
        "deployment/oauth.md",
    ),
    "secret": Topic(
        "One secret on all instances",
        "Instances have different values of CHAINLIT_AUTH_SECRET: a login at one is none at another.",
        "Set the same CHAINLIT_AUTH_SECRET for all.",
        "troubleshooting.md#the-page-jumps-back-to-the-login",
    ),
    "oauth_redirect": Topic(
        "The redirect address of OAuth",
        "The app takes another address for its own: the Host is changed on the way, or X-Forwarded-Proto is"
        " missing or not believed.",
        "Keep the Host, send X-Forwarded-Proto and have the instance believe it (FORWARDED_ALLOW_IPS), or set"
        " CHAINLIT_URL.",
        "deployment/oauth.md",
    ),
    "origin": Topic(
        "Requests with an Origin",
        "Something refuses requests with the Origin that browsers send from this very page.",
        "Allow the public address of the site wherever origins are checked; keep the Host.",
        "running-chainlit.md#a-proxy-in-front-of-this-one",
    ),
    "session_cookie": Topic(
        "The cookie of the session",
        "Chainlit marks its cookie by whether the client seems to be on its own machine: without"
        " X-Forwarded-For all are, and on a page without HTTPS browsers drop the cookie of all others.",
        "Serve HTTPS, send X-Forwarded-For, and have the instance believe it (FORWARDED_ALLOW_IPS).",
        "deployment/copilot.md",
    ),
    "upgrade": Topic(
        "Websockets",
        "Something on the way does not pass websocket upgrades on: the headers Upgrade and Connection are"
        " lost. Pages stay on long polling, which costs an instance three to four times the CPU.",
        "Pass Upgrade and Connection on, in HTTP/1.1.",
        "running-chainlit.md#a-proxy-in-front-of-this-one",
    ),
    "polling": Topic("Sessions over polling", _STICKY, _PIN, "why.md"),
    "polling_then_websocket": Topic("Sessions as the page opens them", _STICKY, _PIN, "why.md"),
    "websocket": Topic("Sessions over websockets alone", _STICKY, _PIN, "why.md"),
    "upload": Topic(
        "Uploads", _INSTANCE, _PIN, "troubleshooting.md#uploads-answer-404-elements-401-actions-500"
    ),
    "element": Topic(
        "Elements", _INSTANCE, _PIN, "troubleshooting.md#uploads-answer-404-elements-401-actions-500"
    ),
    "action": Topic(
        "Actions", _INSTANCE, _PIN, "troubleshooting.md#uploads-answer-404-elements-401-actions-500"
    ),
    "reconnect": Topic(
        "A session that comes back",
        "A client that lost its connection reaches another instance, which does not know its session: the"
        " chat starts again.",
        _PIN,
        "troubleshooting.md#the-chat-starts-again",
    ),
    "tabs": Topic(
        "Several tabs of one browser",
        "A cookie or a hash of it follows the newest tab, and the older ones lose their instance.",
        "Hold sessions, not browsers' newest cookie; or at least by a cookie of the balancer's own.",
        "affinity.md",
    ),
    "many_sessions": Topic(
        "Many sessions at once",
        "Single sessions work, many at once do not: a limit on connections or on requests of one client, or"
        " instances that differ.",
        "Look for limits by address and for the instance that refuses; the evidence has its answers.",
        "limits.md",
    ),
    "polling_without_cookies": Topic("Polling without cookies", _COOKIELESS, _NO_COOKIE, "affinity.md"),
    "polling_then_websocket_without_cookies": Topic(
        "The page without cookies", _COOKIELESS, _NO_COOKIE, "affinity.md"
    ),
    "websocket_without_cookies": Topic("Websockets without cookies", _COOKIELESS, _NO_COOKIE, "affinity.md"),
    "requests_without_cookies": Topic(
        "Uploads, elements and actions without cookies", _COOKIELESS, _NO_COOKIE, "affinity.md"
    ),
    "reconnect_without_cookies": Topic(
        "A session that comes back without cookies", _COOKIELESS, _NO_COOKIE, "affinity.md"
    ),
    "buffering": Topic(
        "Text as it is written",
        "Something on the way collects what the app sends before it passes it on; or the app blocks its event"
        " loop.",
        "Turn buffering and inspection of responses off for this site.",
        "troubleshooting.md#text-comes-in-lumps-or-the-client-stays-on-polling",
    ),
    "answer": Topic(
        "An answer of the app",
        "The app failed, did not answer in time, or its text came all at once: it does not stream, or"
        " something buffers.",
        "See the log of the app; if the finding `buffering` is there too, begin with that one.",
        "troubleshooting.md#text-comes-in-lumps-or-the-client-stays-on-polling",
    ),
    "idle": Topic(
        "A chat at rest",
        "Something on the way ends connections that are silent, or all after a fixed time. Engine.IO is heard"
        " of every 25 seconds, so that every limit below that cuts all users off again and again.",
        "Raise the idle time on the way to 60 seconds or more, and the limit on a websocket's life to hours.",
        "deployment/balancer.md",
    ),
    "large_upload": Topic(
        "A large upload",
        "Something on the way refuses large bodies, or gives up while they come.",
        "Allow what the app allows: 500 MB, unless max_size_mb says otherwise.",
        "troubleshooting.md#413",
    ),
    "large_headers": Topic(
        "Large cookies",
        "Something on the way refuses long headers. A login with a large token has cookies of several"
        " thousand characters.",
        "Allow 32 KB of headers.",
        "troubleshooting.md#431",
    ),
    "large_message": Topic(
        "A large message",
        "Something on the way refuses long packets of Socket.IO, or takes them for an attack.",
        "Allow bodies of 1 MB and websocket messages of that length below /ws/socket.io.",
        "running-chainlit.md#a-proxy-in-front-of-this-one",
    ),
}
