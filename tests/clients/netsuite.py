"""Asks a SuiteQL address with a signature of oauthlib, and prints what was signed and what came.

Arguments: address, realm, consumer key, consumer secret, token, token secret.
"""

import json
import sys
import urllib.parse
import urllib.request

from oauthlib.oauth1 import SIGNATURE_HMAC_SHA256, Client
from oauthlib.oauth1.rfc5849.utils import parse_authorization_header

address, realm, key, secret, token, token_secret = sys.argv[1:]
client = Client(
    key,
    client_secret=secret,
    resource_owner_key=token,
    resource_owner_secret=token_secret,
    realm=realm,
    signature_method=SIGNATURE_HMAC_SHA256,
)
body = json.dumps({"q": "SELECT t.id FROM contact t WHERE t.id > 0 ORDER BY t.id"})
headers = {"Content-Type": "application/json", "Prefer": "transient"}
address, headers, body = client.sign(address, http_method="POST", body=body, headers=headers)
request = urllib.request.Request(address, data=body.encode(), headers=headers, method="POST")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with opener.open(request, timeout=20) as answer:
    came = json.load(answer)
fields = {n: urllib.parse.unquote(v) for n, v in parse_authorization_header(headers["Authorization"])}
fields.pop("realm")
signature = fields.pop("oauth_signature")
print(json.dumps({"fields": fields, "signature": signature, "answer": came}))
