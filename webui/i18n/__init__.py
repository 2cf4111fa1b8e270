"""Languages of the page. English is in the code; translations are in locales/LANGUAGE/LC_MESSAGES/webui.po.

Babel loads the translations at startup. Mark every text: `_` translates, `ngettext` handles plurals, `N_` only marks
a text that `_` translates later. `gr.I18n` is not enough: it translates only labels and only by the browser's
language, and most texts of this page are created while an answer streams.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ENGLISH, ZH = "en", "zh"
NAMES = {ENGLISH: "English", ZH: "中文"}
PATHS = {ENGLISH: "/", ZH: "/zh/"}
"""URL path of the page in each language."""
LOCALES = Path(__file__).parent / "locales"

_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def read_catalog(language: str) -> Catalog:
    with (LOCALES / language / "LC_MESSAGES" / "webui.po").open("rb") as file:
        return read_po(file, locale=language)


def load_translations(language: str) -> GNUTranslations:
    with BytesIO() as file:
        write_mo(file, read_catalog(language))
        file.seek(0)
        return GNUTranslations(file)


_TRANSLATIONS: dict[str, NullTranslations] = {ENGLISH: NullTranslations(), ZH: load_translations(ZH)}


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """Sets the language inside the block, and in threads and tasks started there."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def current_language() -> str:
    return _language.get()


def gettext(message: str, /, **values: object) -> str:
    """Translates `message` to the current language and fills in `values` for the names in braces.

    A text without a translation (a greeting from cluster.yaml, a message of an engine) is returned unchanged.
    """
    # For an empty text, gettext returns the header of the catalog.
    translated = _TRANSLATIONS[_language.get()].gettext(message) if message else ""
    return translated.format(**values) if values else translated


def ngettext(singular: str, plural: str, count: int) -> str:
    """Returns the singular or plural form for `count` in the current language, with {count} filled in."""
    return _TRANSLATIONS[_language.get()].ngettext(singular, plural, count).format(count=count)


def gettext_noop(message: str) -> str:
    return message


_, N_ = gettext, gettext_noop


LANGUAGE_COOKIE = "manyeyes-language"


class LanguageRedirect:
    """ASGI middleware that redirects / to the user's language. Programs send no language and get English."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            language = requested_language(Request(scope))
            if language != ENGLISH:
                # Relative, because the user may reach the page at another port or scheme.
                answer = RedirectResponse(PATHS[language].lstrip("/"), 303, {"Vary": "Cookie, Accept-Language"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def requested_language(request: Request) -> str:
    return negotiate_language(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))


def negotiate_language(cookie: str | None, accept_language: str) -> str:
    """Returns the language chosen on the page, else the browser's first supported language, else English."""
    if cookie in NAMES:
        return str(cookie)
    for part in accept_language.split(","):
        name = part.partition(";")[0].strip().partition("-")[0].lower()
        if name in NAMES:
            return name
    return ENGLISH
