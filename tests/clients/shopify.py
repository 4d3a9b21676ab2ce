"""ShopifyAPI against the stand-in: SECRET HMAC PORT TOKEN ORDER.

The signature of a redirect is judged by the library; a query is sent by its GraphQL client.
"""

import json
import sys

# This file has the library's own name, and its folder comes first.
sys.path.pop(0)
import shopify  # noqa: E402

secret, hmac, port, token, order = sys.argv[1:]

shopify.Session.setup(api_key="shop-client", secret=secret, protocol="http", myshopify_domain="0.0.1", port=port)
redirect = {
    "code": "abc",
    "host": "YWRtaW4=",
    "shop": "tide-shop.myshopify.com",
    "state": "s",
    "timestamp": "4102444800",
    "hmac": hmac,
}
assert shopify.Session.validate_params(redirect), "the library refuses our signature"
assert not shopify.Session.validate_params({**redirect, "shop": "evil.myshopify.com"}), "it takes anything"

# The library makes the host `127.0.0.1` of the shop `127` and the domain.
session = shopify.Session("127.0.0.1", "unstable", token)
shopify.ShopifyResource.activate_session(session)
query = "query ($id: ID!) { order(id: $id) { id name lineItems(first: 1) { nodes { sku } } } }"
answer = json.loads(shopify.GraphQL().execute(query, {"id": f"gid://shopify/Order/{order}"}))
assert answer["data"]["order"]["lineItems"]["nodes"] == [{"sku": "MUG-0"}], answer
assert answer["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"] > 0, answer
