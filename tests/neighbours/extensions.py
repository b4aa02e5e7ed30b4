"""The other extensions: how an app initialises each, and what must still work next to ours."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from flask import Flask, jsonify, session

from flask_webhooks.console.rendering import POLICY
from tests.console.conftest import Visitor
from tests.host import Client, Invoice, db
from tests.neighbours.app import API, HEADERS, Add


def _nothing(_: Flask) -> None:
    pass


@dataclass(frozen=True)
class Neighbour:
    """One extension."""

    name: str
    add: Add
    """Initialises it, and adds what a host would do with it."""
    check: t.Callable[[Flask], None] = _nothing
    """That the host's own part of it works."""
    config: t.Mapping[str, t.Any] = field(default_factory=dict)
    base: str = "http://localhost"
    policy: str = POLICY
    adds_scripts: bool = False


def page(app: Flask, path: str, **options: t.Any) -> t.Any:
    """Return the answer to a GET, which is 200."""
    answer = app.test_client().get(path, **options)
    assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
    return answer


# ---- forms, users ------------------------------------------------------------------------------------------


def _admin(app: Flask) -> None:
    from flask_admin import Admin
    from flask_admin.contrib.sqla import ModelView

    _babel(app)  # which it asks where it is installed
    admin = Admin(app, name="Host")
    admin.add_view(ModelView(Client, db))


def _check_admin(app: Flask) -> None:
    page(app, "/admin/")
    assert "Owner" in page(app, "/admin/client/").text
    answer = app.test_client().post("/admin/client/new/", data={"owner": "1", "name": "Ada"})
    assert answer.status_code == 302
    assert "Ada" in page(app, "/admin/client/").text


def _login(app: Flask) -> None:
    from flask_login import LoginManager, UserMixin, login_required, login_user

    class User(UserMixin):  # type: ignore[misc]
        id = "7"

    manager = LoginManager(app)
    manager.login_view = "enter"
    manager.user_loader(lambda _: User())
    app.add_url_rule("/enter", "enter", lambda: str(login_user(User())))
    app.add_url_rule("/mine", "mine", login_required(lambda: "mine"))


def _check_login(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/mine").status_code == 302
    client.get("/enter")
    assert client.get("/mine").text == "mine"


def _security(app: Flask) -> None:
    from flask_security import Security, SQLAlchemyUserDatastore

    from tests.neighbours.users import Role, User

    Security(app, SQLAlchemyUserDatastore(db, User, Role))


def _check_security(app: Flask) -> None:
    from flask_security import hash_password

    with app.app_context():
        datastore = app.extensions["security"].datastore
        datastore.create_user(email="ada@example.com", password=hash_password("pears-and-plums"))
        db.session.commit()
    assert 'name="password"' in page(app, "/login").text
    client = app.test_client()
    answer = client.post("/login", data={"email": "ada@example.com", "password": "pears-and-plums"})
    assert answer.status_code == 302, answer.text
    # Signed in at the host, but without a principal.
    assert client.get("/webhooks/console/").status_code in (302, 403)
    assert client.get(API).status_code == 401


SECURITY = {
    "SECURITY_PASSWORD_SALT": "1",
    "SECURITY_PASSWORD_HASH": "plaintext",
    "SECURITY_PASSWORD_SCHEMES": ["plaintext"],
    "SECURITY_EMAIL_VALIDATOR_ARGS": {"check_deliverability": False},
    "WTF_CSRF_ENABLED": False,
}


def _wtf(app: Flask) -> None:
    from flask_wtf import CSRFProtect

    CSRFProtect(app)
    app.add_url_rule("/form", "form", lambda: "", methods=["POST"])


def _check_wtf(app: Flask) -> None:
    assert app.test_client().post("/form").status_code == 400


# ---- headers, sessions, limits -----------------------------------------------------------------------------


def _talisman(app: Flask) -> None:
    from flask_talisman import Talisman

    Talisman(app)
    app.add_url_rule("/", "home", lambda: "<p>home</p>")


def _check_talisman(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/").location == "https://localhost/"
    assert client.get(API, headers=HEADERS).location == f"https://localhost{API}"
    ours = client.get(API, headers=HEADERS, base_url="https://localhost")
    theirs = client.get("/", base_url="https://localhost")
    assert theirs.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "Strict-Transport-Security" in ours.headers


def _limiter(app: Flask) -> None:
    from flask_limiter import Limiter

    limiter = Limiter(lambda: "me", app=app, default_limits=["1000 per hour"], storage_uri="memory://")
    app.add_url_rule("/", "home", limiter.limit("1 per hour")(lambda: "home"))


def _check_limiter(app: Flask) -> None:
    page(app, "/")
    assert app.test_client().get("/").status_code == 429


def _session(app: Flask) -> None:
    from cachelib import SimpleCache
    from flask_session import Session

    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
    Session(app)
    app.add_url_rule("/keep", "keep", lambda: session.setdefault("kept", "pears"))
    app.add_url_rule("/kept", "kept", lambda: session.get("kept", "nothing"))


def _check_session(app: Flask) -> None:
    client = app.test_client()
    client.get("/keep")
    client.get("/webhooks/console/", headers=HEADERS)
    assert client.get("/kept").text == "pears"
    client.get(API, headers=HEADERS)
    assert app.test_client().get(API, headers=HEADERS).headers.get("Set-Cookie") is None


def _cors(app: Flask) -> None:
    from flask_cors import CORS

    CORS(app, origins=["https://shop.example"], supports_credentials=True)
    app.add_url_rule("/", "home", lambda: "home")


def _check_cors(app: Flask) -> None:
    client = app.test_client()
    origin = {"Origin": "https://shop.example"}
    asked = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = client.options(API, headers=asked)
    assert page(app, "/", headers=origin).headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    # CORS lets a page read; to write with a cookie is another matter.
    forged = client.post(
        API,
        json={},
        headers={**origin, "X-Owner": "1", "Cookie": "session=x", "Sec-Fetch-Site": "cross-site"},
    )
    assert forged.status_code == 403


def _compress(app: Flask) -> None:
    from flask_compress import Compress

    Compress(app)
    app.add_url_rule("/", "home", lambda: "home" * 1000)


def _check_compress(app: Flask) -> None:
    packed = {**HEADERS, "Accept-Encoding": "gzip"}
    assert page(app, "/", headers=packed).headers["Content-Encoding"] == "gzip"
    console = page(app, "/webhooks/console/", headers=packed)
    assert console.headers["Content-Encoding"] == "gzip"
    tag = page(app, "/webhooks/console/static/console.css", headers=packed).headers["ETag"]
    again = app.test_client().get(
        "/webhooks/console/static/console.css", headers={**packed, "If-None-Match": tag}
    )
    assert again.status_code == 304


def _caching(app: Flask) -> None:
    from flask_caching import Cache

    cache = Cache(app)
    calls: list[int] = []

    def home() -> str:
        calls.append(1)
        return str(len(calls))

    app.add_url_rule("/", "home", cache.cached(timeout=60)(home))


def _check_caching(app: Flask) -> None:
    assert [page(app, "/").text for _ in range(2)] == ["1", "1"]


# ---- what looks at the app ---------------------------------------------------------------------------------


def _toolbar(app: Flask) -> None:
    from flask_debugtoolbar import DebugToolbarExtension

    DebugToolbarExtension(app)
    app.add_url_rule("/", "home", lambda: "<html><body>home</body></html>")


def _check_toolbar(app: Flask) -> None:
    text = page(app, "/").text
    assert "flDebug" in text
    assert "/webhooks/api/subscriptions" in text  # the panel of routes has ours


def _babel(app: Flask) -> None:
    from flask_babel import Babel, gettext

    Babel(app, locale_selector=lambda: "de")
    app.add_url_rule("/", "home", lambda: gettext("Cancel"))


def _check_babel(app: Flask) -> None:
    assert page(app, "/").text == "Cancel"  # the host has no German: ours is not the host's
    assert 'lang="de"' in Visitor(app).get("/").text


def _migrate(app: Flask) -> None:
    from flask_migrate import Migrate

    Migrate(app, db)


def _check_migrate(app: Flask) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {**app.extensions["migrate"].configure_args, "compare_type": True}
    with app.app_context(), db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, db.metadata) == []
        connection.exec_driver_sql("DROP TABLE webhook_attempts")
        found = compare_metadata(context, db.metadata)
        assert [each[1].name for each in found if each[0] == "add_table"] == ["webhook_attempts"]
        db.metadata.tables["webhook_attempts"].create(connection)
        connection.commit()


def _smorest(app: Flask) -> None:
    from flask_smorest import Api, Blueprint

    from tests.host import InvoiceSchema

    app.config.update(API_TITLE="Host", API_VERSION="1", OPENAPI_VERSION="3.0.3", OPENAPI_URL_PREFIX="/")
    blueprint = Blueprint("invoices", __name__, url_prefix="/invoices")

    @blueprint.get("/")
    @blueprint.response(200, InvoiceSchema(many=True))
    def listed() -> t.Any:
        return db.session.scalars(db.select(Invoice)).all()

    Api(app).register_blueprint(blueprint)


def _check_smorest(app: Flask) -> None:
    assert set(page(app, "/openapi.json").json["paths"]) == {"/invoices/"}
    assert page(app, "/invoices/").json == []
    assert app.test_client().get("/nowhere").json["code"] == 404


def _restx(app: Flask) -> None:
    from flask_restx import Api, Resource

    api = Api(app, catch_all_404s=True)

    @api.route("/invoices")
    class Invoices(Resource):  # type: ignore[misc]
        def get(self) -> t.Any:
            return list(db.session.scalars(db.select(Invoice.number)))

        def post(self) -> t.Any:
            api.abort(409, "A teapot")


def _check_restx(app: Flask) -> None:
    assert set(page(app, "/swagger.json").json["paths"]) == {"/invoices"}
    assert page(app, "/invoices").json == []
    assert app.test_client().post("/invoices").json["message"] == "A teapot"


def _flasgger(app: Flask) -> None:
    from flasgger import Swagger

    def invoices() -> t.Any:
        """Invoices.
        ---
        responses:
          200: {description: All of them}
        """
        return jsonify([])

    app.add_url_rule("/invoices", "invoices", invoices)
    Swagger(app)


def _check_flasgger(app: Flask) -> None:
    assert set(page(app, "/apispec_1.json").json["paths"]) == {"/invoices"}


def _socketio(app: Flask) -> None:
    from flask_socketio import SocketIO

    socketio = SocketIO(app, async_mode="threading")
    socketio.on("double")(lambda number: number * 2)


def _check_socketio(app: Flask) -> None:
    client = app.extensions["socketio"].test_client(app)
    assert client.emit("double", 4, callback=True) == 8


NEIGHBOURS = [
    Neighbour("admin", _admin, _check_admin),
    Neighbour("login", _login, _check_login),
    Neighbour("security", _security, _check_security, SECURITY),
    Neighbour("wtf", _wtf, _check_wtf),
    Neighbour(
        "talisman",
        _talisman,
        _check_talisman,
        base="https://localhost",
        policy="default-src 'self'; object-src 'none'",
    ),
    Neighbour("limiter", _limiter, _check_limiter),
    Neighbour("session", _session, _check_session),
    Neighbour("cors", _cors, _check_cors),
    Neighbour("compress", _compress, _check_compress, {"COMPRESS_MIN_SIZE": 1}),
    Neighbour("caching", _caching, _check_caching, {"CACHE_TYPE": "SimpleCache"}),
    Neighbour("debugtoolbar", _toolbar, _check_toolbar, {"DEBUG": True}, adds_scripts=True),
    Neighbour("babel", _babel, _check_babel),
    Neighbour("migrate", _migrate, _check_migrate),
    Neighbour("smorest", _smorest, _check_smorest),
    Neighbour("restx", _restx, _check_restx),
    Neighbour("flasgger", _flasgger, _check_flasgger),
    Neighbour("socketio", _socketio, _check_socketio),
]
