"""What of the Hub an app asks when somebody signs in: OpenID Connect, by authorization code, with signed tokens."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET, TOKEN = "the-app", "a-secret-of-the-app", "hf_oauth_a_token_that_nobody_may_see"


class Provider:
    """Signs in, without asking, whoever `user` is at the time."""

    def __init__(self, user: str = "somebody", lifetime: int = 3600):
        self.user, self.lifetime = user, lifetime
        self._key = RSAKey.generate_key(2048, auto_kid=True)
        self._nonces: dict[str, tuple[str, str]] = {}  # by code: the user, and what the app wants to hear again
        provider = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = urlsplit(self.path)
                if asked.path == "/oauth/authorize":
                    self.send_response(302)
                    self.send_header(
                        "Location", provider.authorized({k: v[0] for k, v in parse_qs(asked.query).items()})
                    )
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.answer(
                        {"/.well-known/openid-configuration": provider.metadata, "/keys": provider.keys}[asked.path]()
                    )

            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(provider.exchanged(form["code"][0]))

            def answer(self, content):
                said = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def variables(self, owner: str = "somebody") -> dict[str, str]:
        """The environment of a Space of `owner` that offers to sign in."""
        return {
            **{"SYSTEM": "spaces", "SPACE_ID": f"{owner}/marionette", "OPENID_PROVIDER_URL": self.url},
            **{"OAUTH_CLIENT_ID": CLIENT, "OAUTH_CLIENT_SECRET": SECRET, "OAUTH_SCOPES": "openid profile"},
        }

    def close(self) -> None:
        self._server.shutdown()

    def metadata(self) -> dict:
        ways = {"authorization_endpoint": "oauth/authorize", "token_endpoint": "oauth/token", "jwks_uri": "keys"}
        return {"issuer": self.url} | {name: f"{self.url}/{path}" for name, path in ways.items()}

    def keys(self) -> dict:
        return KeySet([self._key]).as_dict(private=False)

    def authorized(self, query: dict[str, str]) -> str:
        code = f"code-{len(self._nonces)}"
        self._nonces[code] = self.user, query["nonce"]
        return f"{query['redirect_uri']}&{urlencode({'code': code, 'state': query['state']})}"

    def exchanged(self, code: str) -> dict:
        user, nonce = self._nonces[code]
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 3600, "nonce": nonce, "sub": f"id-of-{user}"}
        claims |= {"name": user.title(), "preferred_username": user, "picture": "", "profile": f"{self.url}/{user}"}
        header = {"alg": "RS256", "kid": self._key.kid}
        kind = {"token_type": "bearer", "scope": "openid profile", "expires_in": self.lifetime}
        return kind | {"access_token": TOKEN, "id_token": jwt.encode(header, claims, self._key)}
