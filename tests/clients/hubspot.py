"""HubSpot's own client, pointed at our fake of HubSpot; and its signature check, beside ours.

hubspot.py BASE TOKEN URI SECRET BODY TIME SIGNATURE: prints what it saw as one JSON object.
"""

import json
import sys

# This file has the name of what it imports.
sys.path.pop(0)
from hubspot import HubSpot
from hubspot.crm.contacts import ApiException, PublicObjectSearchRequest
from hubspot.utils.signature import Signature

base, token, uri, secret, body, time, signature = sys.argv[1:]
client = HubSpot(access_token=token, host=base)
search = client.crm.contacts.search_api


def searched(**more):
    wish = {
        "filter_groups": [{"filters": [{"propertyName": "hs_object_id", "operator": "GT", "value": "0"}]}],
        "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        "properties": ["firstname"],
        "limit": 4,
    }
    return search.do_search(public_object_search_request=PublicObjectSearchRequest(**{**wish, **more}))


first = searched()
second = searched(after=first.paging.next.after)
assert first.total == 6 and second.paging is None, (first.total, second.paging)
assert first.results[0].properties["firstname"].startswith("n") and first.results[0].updated_at
try:
    searched(after="9998", limit=200)
    beyond = 200
except ApiException as error:
    beyond = error.status

contacts = client.crm.contacts.basic_api
page, listed = contacts.get_page(limit=4), 0
while True:
    listed += len(page.results)
    if page.paging is None:
        break
    page = contacts.get_page(limit=4, after=page.paging.next.after)
archived = contacts.get_page(limit=100, archived=True).results
one = contacts.get_by_id(first.results[0].id, properties=["firstname"])
assert one.id == first.results[0].id and not one.archived

print(json.dumps({
    "searched": [record.id for record in first.results + second.results],
    "beyond": beyond,
    "listed": listed,
    "archived": [record.id for record in archived],
    "stages": len(client.crm.pipelines.pipelines_api.get_all("deals").results[0].stages),
    "owners": len(client.crm.owners.owners_api.get_page(limit=100).results),
    "signature": Signature.is_valid(
        signature=signature, client_secret=secret, request_body=body, http_uri=uri, http_method="POST",
        signature_version="v3", timestamp=time,
    ),
    "signed": Signature.get_signature(secret, body, "v3", uri, "POST", time),
}))
