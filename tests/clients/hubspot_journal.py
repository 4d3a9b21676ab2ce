"""HubSpot's SDK, pointed at our fake of the webhooks journal; its answers are held against the SDK's own types.

hubspot_journal.py BASE CLIENT SECRET: prints what it saw as one JSON object.
"""

import json
import sys

import httpx
import hubspot_sdk
from hubspot_sdk.types.shared.journal_fetch_response import JournalFetchResponse

base, client_id, client_secret = sys.argv[1:]
scopes = ["read", "subscriptions.read", "subscriptions.write"]
answer = httpx.post(f"{base}/oauth/v1/token", trust_env=False, data={
    "grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret,
    "scope": " ".join(f"developer.webhooks_journal.{scope}" for scope in scopes),
})
token = answer.raise_for_status().json()["access_token"]
client = hubspot_sdk.HubSpot(
    access_token=token, base_url=base, max_retries=0, _strict_response_validation=True,
    http_client=hubspot_sdk.DefaultHttpxClient(trust_env=False),
)
journal = client.webhooks_journal.journal


def entry(answer):
    """The entry and the items of its file, which is read without credentials."""
    shown = JournalFetchResponse.model_validate_json(answer.read())
    file = httpx.get(shown.url, trust_env=False).raise_for_status().json()
    assert file["offset"] == shown.current_offset, file
    return shown.current_offset, file["journalEvents"]


first, items = entry(journal.get_earliest())
second, more = entry(journal.get_next_from_offset(first))
after = journal.with_raw_response.get_next_from_offset(second).status_code
try:
    unknown = journal.with_raw_response.get_next_from_offset("00000000-0000-4000-8000-999999999999").status_code
except hubspot_sdk.APIStatusError as error:
    unknown = error.status_code

subscriptions = client.webhooks_journal.subscriptions
made = subscriptions.create(
    subscription_type="OBJECT", portal_id=111, object_type_id="0-1", object_ids=[], actions=["CREATE", "UPDATE"],
    properties=["email"],
)
assert made.portal_id == 111 and made.actions == ["CREATE", "UPDATE"], made
listed = [[one.object_type_id, one.subscription_type] for one in subscriptions.list().results]
subscriptions.delete(made.id)

print(json.dumps({
    "offsets": [first, second],
    "actions": [item["action"] for item in items + more],
    "after": after,
    "unknown": unknown,
    "listed": listed,
    "left": len(subscriptions.list().results),
}))
