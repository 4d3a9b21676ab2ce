"""Checks a request that the node has signed with the four keys of a shop's integration: by oauthlib, not by our own code.

Reads {"method", "url", "authorization", "consumerSecret", "tokenSecret"} from its standard input; says "good" or "wrong".
"""

import json
import sys
from urllib.parse import urlsplit

from oauthlib.oauth1.rfc5849 import signature


class Request:
    """What oauthlib looks at."""

    def __init__(self, method, url, authorization):
        headers = {"Authorization": authorization}
        collect = signature.collect_parameters
        query = urlsplit(url).query
        every = collect(uri_query=query, headers=headers, exclude_oauth_signature=False)
        self.signature = dict(every)["oauth_signature"]
        self.params = collect(uri_query=query, headers=headers)
        self.http_method = method
        self.uri = url


asked = json.load(sys.stdin)
request = Request(asked["method"], asked["url"], asked["authorization"])
good = signature.verify_hmac_sha256(request, asked["consumerSecret"], asked["tokenSecret"])
print("good" if good else "wrong")
