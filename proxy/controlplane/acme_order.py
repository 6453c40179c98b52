"""One certificate by ACME (RFC 8555), with certbot's library `acme`: it blocks, and so runs in a thread.

What is wrong is told as `OrderError`, in one line that holds nothing of a key. Only this module knows the
library, which is loaded when the first certificate is due.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

import proxy
from proxy.config.tls_settings import AcmeSettings
from proxy.controlplane.certificate_store import CertificateStore, OrderError, new_key
from proxy.tls import CertificateError

log = logging.getLogger("proxy.acme")
# They write whole messages at the level debug, proofs of an account among them.
for _name in ("acme", "urllib3", "requests"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_PATIENCE = (
    120.0  # seconds for all proofs and for the certificate together, each authority is slower at times
)
_NETWORK = 30  # seconds for one answer of the authority
_LONGEST = 300  # characters of what an authority says


def order(settings: AcmeSettings, store: CertificateStore) -> None:
    """Get a certificate for all domains and put it in its place, which the listeners watch.

    The caller has the store's turn. Raises OrderError.
    """
    with _told():
        network, directory = _connected(settings, store)
        acme = client.ClientV2(directory, network)
        key = new_key()
        request = crypto_util.make_csr(key, list(settings.domains))
        try:
            wanted = acme.new_order(request)
        except messages.Error as error:
            if error.code not in {"unauthorized", "accountDoesNotExist"}:
                raise
            log.warning(
                "the authority does not accept the account any more, registering another: %s", _said(error)
            )
            acme = client.ClientV2(directory, _registered(settings, store, directory))
            wanted = acme.new_order(request)
        answers = dict(_answers(acme, wanted))
        with store.answering({token: text for token, (_, text) in answers.items()}):
            for challenge, _ in answers.values():
                acme.answer_challenge(challenge, challenge.response(acme.net.key))
            deadline = dt.datetime.now() + dt.timedelta(seconds=_PATIENCE)  # noqa: DTZ005 - as the library has it
            done = acme.poll_and_finalize(wanted, deadline)
        store.use(key, done.fullchain_pem)


def renewal_time(settings: AcmeSettings, store: CertificateStore) -> tuple[float | None, float]:
    """When the authority wants the certificate renewed (RFC 9773), and when to ask it again, in unix time.

    None: it does not say. Raises OrderError.
    """
    with _told():
        network = _network(settings, None)
        acme = client.ClientV2(client.ClientV2.get_directory(settings.directory, network), network)
        at, again = acme.renewal_time(store.pair.read_bytes())
        return (None if at is None else at.timestamp()), again.timestamp()


def _network(settings: AcmeSettings, key: bytes | None) -> client.ClientNetwork:
    """What speaks to the authority, as whoever has this key."""
    private: Any = serialization.load_pem_private_key(key, None) if key else None
    own = JWKEC(key=private) if key else None
    agent = f"chainlit-sticky-proxy/{proxy.__version__}"
    network = client.ClientNetwork(own, alg=ES256, user_agent=agent, timeout=_NETWORK)
    if settings.ca is not None:
        network.verify_ssl = settings.ca  # type: ignore[assignment] # it is handed to requests, which takes a file
    return network


def _connected(
    settings: AcmeSettings, store: CertificateStore
) -> tuple[client.ClientNetwork, messages.Directory]:
    """The account that is kept, or a new one."""
    kept = store.account()
    try:
        network = _network(settings, kept[0] if kept else None)
    except (ValueError, TypeError):  # or it is encrypted
        log.warning("the account's key in %s cannot be used, registering another account", store.folder)
        kept, network = None, _network(settings, None)
    directory = client.ClientV2.get_directory(settings.directory, network)
    if kept is None:
        return _registered(settings, store, directory), directory
    network.account = messages.RegistrationResource(uri=kept[1], body=messages.Registration())
    return network, directory


def _registered(
    settings: AcmeSettings, store: CertificateStore, directory: messages.Directory
) -> client.ClientNetwork:
    """A new account, with a new key."""
    key = new_key()
    network = _network(settings, key)
    binding, eab = None, settings.eab
    if eab.kid is not None and eab.key is not None:
        assert network.key is not None
        secret = eab.key.get_secret_value().rstrip("=")
        binding = messages.ExternalAccountBinding.from_data(
            network.key.public_key(), eab.kid, secret, directory
        )
    wanted = messages.NewRegistration.from_data(
        email=settings.email, terms_of_service_agreed=True, external_account_binding=binding
    )
    account = client.ClientV2(directory, network).new_account(wanted)
    store.keep_account(key, account.uri)
    log.info("registered an account at %s", settings.directory)
    return network


def _answers(
    acme: client.ClientV2, wanted: messages.OrderResource
) -> Iterator[tuple[str, tuple[messages.ChallengeBody, str]]]:
    """By its token each challenge that is to be met, and what the authority has to read."""
    for authorization in wanted.authorizations:
        body = authorization.body
        if body.status == messages.STATUS_VALID:  # it has not forgotten the last time
            continue
        found = [each for each in body.challenges if isinstance(each.chall, challenges.HTTP01)]
        if not found:
            raise OrderError(f"the authority offers no HTTP-01 challenge for {body.identifier.value}")
        yield found[0].chall.encode("token"), (found[0], found[0].validation(acme.net.key))


@contextmanager
def _told() -> Iterator[None]:
    """Foreign errors, in words."""
    try:
        yield
    except errors.ValidationError as error:
        raise OrderError(_line("; ".join(_refusals(error)))) from None
    except errors.IssuanceError as error:
        raise OrderError(_said(error.error)) from None
    except errors.TimeoutError:
        raise OrderError("the authority did not decide in time") from None
    except messages.Error as error:
        raise OrderError(_said(error)) from None
    except requests.RequestException as error:
        raise OrderError(f"the authority cannot be reached: {_reason(error)}") from None
    except CertificateError as error:
        raise OrderError(f"the certificate that was issued cannot be used: {error}") from None
    except (errors.Error, JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Not by its text, which may be all that was answered.
        raise OrderError(f"the authority's answer is not understood ({type(error).__name__})") from None
    except OSError as error:
        raise OrderError(f"the folder cannot be written: {error.strerror}") from None


def _refusals(error: errors.ValidationError) -> Iterator[str]:
    for authorization in error.failed_authzrs:
        body = authorization.body
        for challenge in body.challenges:
            if challenge.error is not None:
                yield f"{body.identifier.value} was not proved: {_said(challenge.error)}"


def _said(error: messages.Error) -> str:
    """What the authority gave as the reason."""
    inner = [_said(each) for each in error.subproblems or ()]
    return _line("; ".join(filter(None, [error.detail or error.title or error.typ, *inner])))


def _reason(error: BaseException) -> str:
    """The innermost reason why somebody could not be reached: those around it name objects of the library."""
    inner: Any = error
    while (below := inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)) is not None:
        if not isinstance(below, BaseException):
            break
        inner = below
    return _line((isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__)


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
