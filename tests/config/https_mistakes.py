"""Every mistake about HTTPS: its line, its key and its words; a part of the table of `test_mistakes`."""

LISTEN = "host:port, :port for every interface, [v6]:port or unix:/path"
DOORS = f"{LISTEN}; with TLS also http://host:port, which only redirects to https"
DOMAIN = "a host name with a dot in it such as chat.example.com, not an IP address and without *"

# text, line, key, message
TABLE = [
    ("listen: 'http://a:80'", 1, "listen",
     'must not begin with http://, because there is no TLS beside it (got "http://a:80")'),
    ("listen: 'http://unix:/s'", 1, "listen", f'must be {DOORS} (got "http://unix:/s")'),
    ("listen: ['http://a:80', 'a:80']\ntls: {cert: a, key: b}", 1, "listen",
     "must not be taken twice: a:80 and http://a:80 cannot both be bound"),
    ("listen: ['http://a:80']\ntls: {cert: a, key: b}", 1, "listen",
     'must hold an address for HTTPS as well, such as 0.0.0.0:443 (got "http://a:80")'),
    ("listen: ['http://a:80', 'unix:/s']\ntls: {cert: a, key: b}", 1, "listen",  # a socket file has no TLS
     'must hold an address for HTTPS as well, such as 0.0.0.0:443 (got "http://a:80")'),
    ("listen: a:443\ntls: {acme: {domains: a.test}}", 2, "tls.acme.domains",
     "need a plain address in listen, such as http://0.0.0.0:80: the authority asks there"),
    ("admin: {listen: 'http://127.0.0.1:1'}", 1, "admin.listen", f'must be {LISTEN} (got "http://127.0.0.1:1")'),
    *(("tls: {acme: {domains: ['" + name + "']}}", 1, "tls.acme.domains[0]",
       f'must be {DOMAIN} (got "{name}")')
      for name in ("*.a.test", "127.0.0.1", "localhost", "../../etc", "a.test/..", "a..test", "..", "a_b.c")),
    ("tls: {acme: {domains: [a.test, A.TEST.]}}", 1, "tls.acme.domains",
     'must not hold a value twice (got "a.test")'),
    ("tls: {acme: {eab: {kid: a}}}", 1, "tls.acme.eab.key", "must be set together with eab.kid"),
    ("tls: {acme: {eab: {kid: a, key: 's e c r e t'}}}", 1, "tls.acme.eab.key",
     "must be the key as the authority shows it, in base64url: letters, digits, - and _"),
    ("tls: {acme: {directory: 'http://a/d'}}", 1, "tls.acme.directory",
     ("must be an https URL such as https://acme-v02.api.letsencrypt.org/directory, without a name, "
      "password or query")),
    ("tls: {min_version: 1.1}", 1, "tls.min_version", 'must be one of 1.2, 1.3 (got "1.1")'),
    ("tls: {certificates: [{cert: a}]}", 1, "tls.certificates[0].key",
     "is missing: it must be the path of a file"),
]  # fmt: skip
